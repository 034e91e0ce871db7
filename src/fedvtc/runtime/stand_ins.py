"""Modules that stand in for slow ones, and import them at the first use.

The problem: optimizers, torchvision and Lightning import PyTorch's compiler, `torch._dynamo`, to call functions that do
nothing until something is compiled. The import takes nearly as long as that of PyTorch, and a run compiles nothing. The
solution: a module of the same name that has the few names in use, and imports the compiler for any other name or
submodule, as `torch.compile` and `torch.export` need.
"""

import importlib
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

COMPILER = "torch._dynamo"
_UTILS = f"{COMPILER}.utils"


class StandIn(ModuleType):
    """Stands in for a module; a name that the stand-in lacks imports the module.

    Args:
        name: name of the module.
        names: names that the stand-in has.
    """

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        # Code that looks through all modules asks for such names.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(real(self.__name__), name)


def stand_in(module: StandIn, *submodules: StandIn) -> None:
    """Puts a stand-in in the place of its module, and those of submodules in theirs, unless the module is loaded."""
    if module.__name__ in sys.modules:
        return
    if submodules:
        # The empty path makes a package of the stand-in, so that Python searches for further submodules.
        module.__path__ = []
        sys.meta_path.append(_Submodules(module.__name__))
    sys.modules |= {other.__name__: other for other in (module, *submodules)}


def is_real(name: str) -> bool:
    """Returns True if the module itself is loaded."""
    return name in sys.modules and not isinstance(sys.modules[name], StandIn)


def real(name: str) -> ModuleType:
    """Imports a module, in place of its stand-in and of those of its submodules."""
    for other in list(sys.modules):
        if (other == name or other.startswith(f"{name}.")) and isinstance(sys.modules[other], StandIn):
            del sys.modules[other]
    return importlib.import_module(name)


def stand_in_for_the_compiler() -> None:
    """Puts a stand-in in the place of PyTorch's compiler."""
    stand_in(
        StandIn(COMPILER, disable=_disable, graph_break=_nothing, OptimizedModule=_OptimizedModule),
        StandIn(_UTILS, is_compile_supported=_is_compile_supported),
    )


def _nothing(msg: str = "") -> None:
    """Does nothing, as `graph_break` outside of a compiled function."""


def _is_compile_supported(device_type: Any) -> Any:
    return real(_UTILS).is_compile_supported(device_type)


def _disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Returns a function that the compiler leaves alone, as soon as the compiler is loaded."""
    if not isinstance(function, FunctionType):  # A module, a class, or a decorator with arguments.
        return real(COMPILER).disable(function, recursive, **options)
    disabled: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        nonlocal disabled
        if disabled is None:
            if not is_real(COMPILER):
                return function(*args, **keywords)
            disabled = real(COMPILER).disable(function, recursive, **options)
        return disabled(*args, **keywords)

    return call


class _InstancesOfTheRealClass(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return is_real(COMPILER) and isinstance(instance, getattr(sys.modules[COMPILER], "OptimizedModule", ()))


class _OptimizedModule(metaclass=_InstancesOfTheRealClass):
    """Stands for the class of compiled modules, which has no instance until the compiler is loaded."""


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds submodules of a stand-in: imports the package, then the submodule."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns a spec of any submodule, as long as the package is not loaded."""
        is_wanted = name.startswith(f"{self._package}.") and not is_real(self._package)
        return ModuleSpec(name, self) if is_wanted else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Returns the submodule, which is then complete."""
        real(self._package)
        module = importlib.import_module(spec.name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the spec of the submodule."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state
