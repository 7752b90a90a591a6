"""What all blocks of an LLM's config have in common: no secret in an error, no unknown name, flat names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticCustomError,
    core_schema,
)

from nat_dynamo_plugin.nearest import hidden, refuse_unknown_fields

Location = tuple[int | str, ...]

_CORE_ERRORS = frozenset(get_args(core_schema.ErrorType))

_being_built: set[type[BaseModel]] = set()


class Discreet(BaseModel):
    """A model that prints no secret, neither in an error about a field beside it nor in its `repr`.

    Pydantic prints the input of what is wrong, which may be the whole block with the key in it, and whether it does is
    for the outermost model to say, which is NAT's. So the inputs are masked as they leave this model.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls.__pydantic_complete__:
            return handler(source)  # which has it already
        if cls is source and cls not in _being_built:
            # A model that is built as a part of another one, as of NAT's config, would be taken without what is around
            # it wherever it comes up again; so it is built by itself first.
            _being_built.add(cls)
            try:
                cls.model_rebuild(force=True)
            finally:
                _being_built.discard(cls)
            return handler(source)
        # Around everything, the validators of NAT's mixins included, which a model_validator would not be.
        return core_schema.no_info_wrap_validator_function(cls._made_discreetly, handler(source))

    @classmethod
    def _made_discreetly(cls, data: Any, handler: Callable[[Any], Self]) -> Self:
        try:
            made = handler(data)
            made._settle()
            return made
        except ValidationError as error:
            errors = [
                InitErrorDetails(
                    type=_kind(one),
                    loc=cls._as_written(one["loc"], data),
                    input=hidden(one["input"], ".".join(map(str, one["loc"]))),
                    ctx=one.get("ctx", {}),
                )
                for one in error.errors(include_url=False)
            ]
        except ValueError as error:
            errors = [InitErrorDetails(type="value_error", loc=(), input=hidden(data), ctx={"error": error})]
        raise ValidationError.from_exception_data(cls.__name__, errors)

    def _settle(self) -> None:
        """Check what the fields mean together, once each is right. Raises `ValueError`."""

    @classmethod
    def _as_written(cls, loc: Location, data: Any) -> Location:
        """Where the user wrote what is wrong at `loc`."""
        return loc

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, hidden(value, name or "")


def _kind(error: ErrorDetails) -> str | PydanticCustomError:
    """An error's type, to be raised once more; pydantic takes only those by name that are its core's own."""
    kind = error["type"]
    if kind in _CORE_ERRORS:
        return kind
    return PydanticCustomError(kind, "{message}", {"message": error["msg"]})


class Block(Discreet):
    """A block of an LLM's config, such as `admission: {...}`.

    A new one is a file with a subclass, and a field of `DynamoModelConfig`.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    NAME: ClassVar[str]
    """The field of `DynamoModelConfig` that holds the block."""
    FLAT: ClassVar[Mapping[str, str]] = {}
    """Names beside the block that stand for fields in it, as NAT's own (`request_timeout`)."""

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the block, as given by their flat names. Raises `ValueError`."""
        return {cls.FLAT[name]: value for name, value in flat.items()}

    def flat(self) -> dict[str, Any]:
        """The values that the flat names stand for."""
        return {name: getattr(self, field) for name, field in self.FLAT.items()}

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_field(cls, data: Any) -> Any:
        refuse_unknown_fields(data, cls.model_fields, f"`{cls.NAME}`", cls.FLAT)
        return data
