"""Let `optimizer.numeric` be one of ours.

NAT 1.9 has a registry of optimizers, yet types `OptimizerConfig.numeric` as its own one: whatever `_type` says, it
reads its own fields and drops the rest in silence. NAT widens such fields of `Config` itself whenever a component
registers (`Config.rebuild_annotations`); here the same is done for the one field that it leaves out.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

from nat.data_models.optimizer import OptimizerConfig, OptimizerStrategyBaseConfig
from pydantic import BeforeValidator, Discriminator, Tag

_OURS, _ANY_OTHER = "ours", "any other"


def let_nat_take(config_type: type[OptimizerStrategyBaseConfig]) -> None:
    """Make `optimizer.numeric` take `config_type` under its registered name, besides what it takes already.

    Call it before `config_type` is registered: that makes NAT rebuild its `Config`, which takes tens of ms.
    """
    name = config_type.static_type()
    names = (name, config_type.static_full_type())

    def named(value: Any) -> Any:
        return value.get("_type", value.get("type")) if isinstance(value, dict) else getattr(value, "type", None)

    def which(value: Any) -> str:
        return _OURS if named(value) in names else _ANY_OTHER

    def no_typing_error(value: Any) -> Any:
        # NAT would take the name for its own optimizer and run that.
        given = named(value)
        if isinstance(given, str) and given not in names and get_close_matches(given, names, n=1, cutoff=0.7):
            raise ValueError(f"_type={given!r}: there is no such optimizer; did you mean {name}?")
        return value

    field = OptimizerConfig.model_fields["numeric"]
    # What the field takes so far, with what was annotated on it.
    others: Any = field.annotation
    for extra in field.metadata:
        others = Annotated[others, extra]
    field.annotation = Annotated[
        Annotated[config_type, Tag(_OURS)] | Annotated[others, Tag(_ANY_OTHER)],
        Discriminator(which),
        BeforeValidator(no_typing_error),
    ]
    field.metadata = []
    OptimizerConfig.model_rebuild(force=True)
