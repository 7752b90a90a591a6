"""The user's config as it was when the sweep began: the one source of candidates, of what is written, of the name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from nat.data_models.config import Config
from nat.data_models.optimizer import OptimizerRunConfig
from nat.plugins.config_optimizer.update_helpers import apply_suggestions
from nat.utils.io.yaml_tools import yaml_load
from pydantic import BaseModel
from ruamel.yaml.error import YAMLError

from nat_dynamo_plugin.config.model import BASE_URL, DynamoModelConfig
from nat_dynamo_plugin.files import write_text
from nat_dynamo_plugin.secrets import redacted, with_variables
from nat_dynamo_plugin.sweep.space import Values
from nat_dynamo_plugin.sweep.yaml_output import tuned_text, with_values

# What does not change what is measured does not change the study's name.
_ASIDE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("optimizer",): ("output_path", "target", "prompt"),
    ("optimizer", "numeric"): (
        *("n_trials", "parallel", "time_budget_s", "storage", "study_name", "lost_after_s", "enabled"),
        *("finalists", "final_rounds", "confidence", "smallest_gain"),
    ),
    ("eval", "general"): ("output", "output_dir"),
}
_KEY = "api_key"


class Snapshot:
    """A config that is tuned, read once: edits of its files while a sweep runs change nothing.

    Args:
        config: as NAT loaded it.
        options: of `nat optimize`.

    Attributes:
        base: the config.
        file: the user's file, if there is one.
    """

    def __init__(self, config: Config, options: OptimizerRunConfig) -> None:
        self.base = config
        self.file: Path | None = None
        self._options = options
        self._text = ""
        if isinstance(options.config_file, BaseModel):
            self._data: dict[str, Any] = config.model_dump(mode="python", warnings=False)
        else:
            self.file = Path(options.config_file)
            # With its own ends of lines.
            self._text = self.file.read_bytes().decode("utf-8")
            # Base files merged, variables replaced. Secrets may be in it.
            self._data = dict(yaml_load(self.file))

    def _with(self, values: Values) -> dict[str, Any]:
        return with_values(deepcopy(self._data), self.base, values)

    def candidate(self, values: Values) -> Config:
        """The config with these values and nothing else changed, validated for one run alone.

        Raises:
            ValueError: if the config refuses them.
        """
        if self.file is None:
            return cast(Config, apply_suggestions(self.base, values))
        try:
            return Config.model_validate(self._with(values))
        except ValueError as error:
            # Pydantic shows input values, keys among them.
            raise ValueError(f"search_space: the config refuses {values}: {redacted(str(error))}") from None

    def write(self, values: Values, target: Path) -> None:
        """Write what `candidate` makes of these values, and see that NAT reads the same from it.

        The user's text is kept, with its comments, variables and ends of lines. Where that would be another config,
        as when a base file was edited meanwhile, all is written out in one plain file.

        Raises:
            RuntimeError: if neither reads as what was measured; then there is no file.
        """
        assert self.file is not None
        wanted, source = self._with(values), self.file.parent
        texts: tuple[Callable[[], str], ...] = (
            lambda: tuned_text(self._text, self.base, values, source=source, target=target.parent),
            lambda: with_variables(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)),
        )
        for text in texts:
            with suppress(YAMLError):  # what is YAML only once its variables are replaced
                write_text(target, text(), newline="")
                if _read(target) == wanted:
                    return
        target.unlink(missing_ok=True)
        chosen = ", ".join(f"{path}={value}" for path, value in values.items())
        raise RuntimeError(f"{target} is not written, for NAT would read another config from it; set {chosen} yourself")

    def fingerprint(self, parts: Mapping[str, Any]) -> str:
        """A short name of what is measured, so that only the same sweep goes on where another stopped.

        It follows the config as it is read (base files merged, variables replaced, keys left out), the questions, the
        server and the options of `nat optimize`.

        Args:
            parts: what else decides the trials: the search space, the seed and the like.
        """
        data = deepcopy(self._data)
        for place, names in _ASIDE.items():
            for name in names:
                _drop(data, (*place, name))
        facts = {
            "config": _without_keys(data),
            "options": {
                name: str(getattr(self._options, name))
                for name in ("dataset", "result_json_path", "endpoint", "endpoint_timeout")
            },
            "files": {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in self._files()},
            "servers": [
                llm.base_url or os.getenv(BASE_URL, "")
                for llm in self.base.llms.values()
                if isinstance(llm, DynamoModelConfig) and llm.local is None
            ],
            **parts,
        }
        text = redacted(json.dumps(facts, sort_keys=True, default=str))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _files(self) -> list[Path]:
        """The files whose content decides what is measured: those of the dataset, and predictions."""
        dataset = self._options.dataset or self.base.eval.general.dataset
        named = [value for _, value in dataset] if isinstance(dataset, BaseModel) else [dataset]
        named += [llm.prefix_predictions for llm in self.base.llms.values() if isinstance(llm, DynamoModelConfig)]
        files = [Path(one) for one in named if isinstance(one, str | Path) and str(one)]
        return [file for file in files if file.is_file()]


def _read(file: Path) -> Any:
    """What NAT reads from a file; `None` where that is no config."""
    try:
        return dict(yaml_load(file))
    except (ValueError, OSError, TypeError, AssertionError):
        return None


def _drop(data: Any, place: tuple[str, ...]) -> None:
    """Take a value out of nested mappings, and those that are empty then."""
    name, *below = place
    if not isinstance(data, dict) or name not in data:
        return
    if below:
        _drop(data[name], tuple(below))
    if not below or data[name] in ({}, None):
        del data[name]


def _without_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_keys(inner) for name, inner in value.items() if name != _KEY}
    return [_without_keys(one) for one in value] if isinstance(value, list | tuple) else value
