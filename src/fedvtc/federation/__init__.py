"""One run: launch, resume, rounds, checkpoints, end. No command-line parsing, no reports, no Ray or W&B import."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedvtc.federation.launch import run_federation as run_federation
    from fedvtc.federation.resume import resume_federation as resume_federation

_MODULES = {"run_federation": "launch", "resume_federation": "resume"}


def __getattr__(name: str) -> Any:
    """Imports `run_federation` and `resume_federation` on first use, because their modules load NumPy and PyTorch."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
