from __future__ import annotations

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin.config.model import DynamoModelConfig


class TestConfig:
    @pytest.mark.parametrize("value", [0, -1, 1.5, "many", True, []])
    def test_bad_limits_are_refused(self, value: object) -> None:
        with pytest.raises(ValidationError, match=r"max_active_prefixes=.* use a whole number of 1 or more, or auto"):
            DynamoModelConfig(model_name="m", max_active_prefixes=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("value", "near"), [(0, 1), (51, 50)])
    def test_bad_totals_name_the_nearest(self, value: int, near: int) -> None:
        with pytest.raises(ValidationError, match=rf"prefix_total_requests={value}.*from 1 to 50.*nearest is {near}"):
            DynamoModelConfig(model_name="m", prefix_total_requests=value)

    @pytest.mark.parametrize("value", ["auto", "AUTO", " auto "])
    def test_auto(self, value: str) -> None:
        config = DynamoModelConfig(
            model_name="m", prefix_total_requests=value, prefix_osl=value, prefix_iat=value, max_active_prefixes=value
        )
        assert config.admission.max_active_prefixes == config.prefix_total_requests == config.prefix_osl == "auto"
        hints = config.prefix_hints
        assert (hints.total_requests, hints.osl, hints.iat) == (None, None, None)
        assert DynamoModelConfig(**config.model_dump()) == config

    def test_the_names_are_ours(self) -> None:
        assert {"admission", "prefix_learned", "retry", "connection"} <= DynamoModelConfig.get_dynamo_field_names()

    @pytest.mark.parametrize("field", ["prefix_idle", "prefix_max_wait"])
    @pytest.mark.parametrize("value", [0, -1, "nan", "inf"])
    def test_times_are_positive(self, field: str, value: object) -> None:
        with pytest.raises(ValidationError):
            DynamoModelConfig(model_name="m", **{field: value})  # type: ignore[arg-type]
