"""The decorator that makes a class a section of the config, and the markers of keys."""

from dataclasses import dataclass, field
from typing import TypeVar, cast, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, Field

SectionT = TypeVar("SectionT")


def key_of(name: str) -> str:
    """Returns the config key of a field: the field's name without the underscore that `async_` needs in Python."""
    return name.removesuffix("_")


_RULES = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    # `${run.seed}` in a text key gives a number.
    coerce_numbers_to_str=True,
    alias_generator=key_of,
    validate_by_name=True,
    validate_by_alias=True,
)


@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
def section(cls: type[SectionT]) -> type[SectionT]:
    """Makes a class a frozen dataclass whose values pydantic checks.

    One field is one config key. Everything about the key stands on the field: the type, the range as in
    `Annotated[int, Field(ge=1)]`, the default, `MayChange()` where a resumed run may have another value, `AddedLater()`
    on a new key, and the text of `fedvtc run --help` as the docstring below the field.
    """
    return cast(type[SectionT], pydantic.dataclasses.dataclass(frozen=True, config=_RULES)(cls))


@dataclass(frozen=True)
class MayChange:
    """Marks a key that may have another value when a run is resumed.

    Args:
        effect: the effect of another value, as a sentence for the reference of config keys.
    """

    effect: str = "Applies to the rounds that follow."


@dataclass(frozen=True)
class AddedLater:
    """Marks a key that older run folders lack: at its default, the key does not count in the config's fingerprint.

    Without the mark, a new key would change the fingerprint of every old run, and no old run could be resumed.
    """


@dataclass(frozen=True)
class IsPath:
    """Marks a key whose value is a path; a relative path starts in the working folder of the command."""
