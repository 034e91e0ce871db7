"""Checks that every method must pass, also one of your own: `check_method(MyMethod)`. No test framework is imported."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedvtc.testing.checks import check_method as check_method


def __getattr__(name: str) -> Any:
    """Imports `check_method` on first use, because its module loads PyTorch."""
    if name != "check_method":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fedvtc.testing.checks import check_method

    return check_method
