"""Models as programs of `torch.export`, which run in plain PyTorch without the code of their classes.

Shapes: B images of a batch, C classes.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedvtc.errors import FAILURES, reason


class ProgramError(Exception):
    """A model that cannot be written as a program; the text is the reason."""


class PredictorModule(nn.Module):
    """A predictor as a module.

    Args:
        predictor: a function of images that computes scores (B, C) by the modules.
        modules: the modules by name; their weights are the weights of this module, below `parts.`.
    """

    def __init__(self, predictor: Callable[[Tensor], Tensor], modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self._predictor = predictor

    @classmethod
    def of(cls, predictor: Callable[[Tensor], Tensor], modules: Mapping[str, nn.Module]) -> nn.Module:
        """Returns the predictor itself if it is a module."""
        return predictor if isinstance(predictor, nn.Module) else cls(predictor, modules)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images to scores (B, C)."""
        return self._predictor(images)


class Program:
    """A program of a module's architecture, which computes with any weights of this architecture.

    Args:
        module: the module, in eval mode.
        inputs: example inputs, at least two rows each; the program takes any number of rows.

    Raises:
        ProgramError: PyTorch cannot trace the module.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = torch.export.Dim("rows")
        try:
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):
                self._exported = torch.export.export(module, inputs, dynamic_shapes=tuple({0: rows} for _ in inputs))
        except FAILURES as error:
            raise ProgramError(reason(error)) from None
        state = self._exported.state_dict
        self._names = tuple(state)
        # The program must not change the weights of the module.
        for name, weight in tuple(state.items()):
            state[name] = nn.Parameter(torch.zeros_like(weight), requires_grad=weight.is_floating_point())
        self._runnable: Any = self._exported.module()

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the `portable_weights` of a module that the program reads.

        Raises:
            KeyError: the module lacks a weight.
        """
        state = portable_weights(module)
        return {name: state[name] for name in self._names}

    def with_weights(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """Returns the program as a module with these weights; the next call changes the weights of this module.

        Raises:
            RuntimeError: the weights have other names or shapes.
        """
        self._runnable.load_state_dict(weights)
        return cast(nn.Module, self._runnable)

    def save(self, path: Path) -> None:
        """Writes the program, for `torch.export.load`.

        All weights in the file are zero: scores that are all equal show that weights were not loaded.
        """
        for weight in self._exported.state_dict.values():
            weight.detach().zero_()
        with warnings.catch_warnings(action="ignore"):
            torch.export.save(self._exported, path)


def portable_weights(module: nn.Module) -> dict[str, Tensor]:
    """Returns copies of the weights of a module by name, contiguous and on the CPU."""
    return {
        name: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, weight in module.state_dict().items()
    }


def save_onnx(module: nn.Module, inputs: tuple[Tensor, ...], names: tuple[str, ...], output: str, path: Path) -> None:
    """Writes a module with its weights as ONNX, for any number of rows.

    Raises:
        ProgramError: PyTorch cannot convert the module, or onnx or onnxscript is not installed.
    """
    rows = torch.export.Dim("rows")
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                module,
                inputs,
                path,
                input_names=names,
                output_names=(output,),
                dynamo=True,
                dynamic_shapes=tuple({0: rows} for _ in inputs),
                external_data=False,
                verbose=False,
            )
    except FAILURES as error:
        raise ProgramError(reason(error)) from None
