"""The local training loop: steps of one module over batches in memory, on the device and in the precision of Fabric."""

import copy
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from lightning import Fabric, LightningModule
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor, nn

from fedvtc.learning.client.memory import Value
from fedvtc.learning.seeding import derive_seed

Precision = Literal["32-true", "bf16-mixed"]
Loss = Callable[..., Tensor | Mapping[str, Tensor]]
"""Computes a loss from the tensors of a batch, such as `loss(images, labels_B)`."""
Terms = Mapping[str, Tensor]
Counted = Callable[[int, Callable[[], Terms]], Terms]
"""Runs a step on a number of images."""


_GENERATORS = threading.RLock()
"""Held while PyTorch's global generators are seeded by a key."""


def make_fabric(device: torch.device, precision: Precision = "32-true") -> Fabric:
    """Builds a Fabric for one device of this process; a launcher's rank never chooses the device.

    Args:
        device: device of the modules.
        precision: precision of training steps; calls of a module outside of `Learner.fit` are float32.
    """
    # A copy, because a new Fabric searches all installed packages for callbacks, which takes longer than the
    # construction of a small client. Not one Fabric for all clients, because a Fabric keeps every module it sets up.
    return copy.deepcopy(_unused_fabric(device, precision))


@cache
def _unused_fabric(device: torch.device, precision: Precision) -> Fabric:
    devices = [device.index or 0] if device.type == "cuda" else 1
    # A plugin instead of the precision's name, for which Lightning prints a line per client.
    plugins = None if precision == "32-true" else MixedPrecision(precision, device.type)
    if not torch.cuda.is_available():
        # Lightning sets this variable to 1. Each step of an optimizer would then search for NVIDIA's library again,
        # which takes a tenth of the step of a small model.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    return Fabric(accelerator=device.type, devices=devices, plugins=plugins)


@contextmanager
def keyed_randomness(
    seed: int, *, round: int, client: int, purpose: str, device: torch.device | None = None
) -> Iterator[None]:
    """Seeds PyTorch's global generators by a key for the length of a block, then restores their state.

    The generators belong to the process, so blocks of different threads run one after another: federations in threads
    of one process draw the same numbers as alone.

    Args:
        seed: the federation's seed.
        round: round of the key.
        client: client of the key.
        purpose: purpose of the key.
        device: a GPU whose generator is seeded too; seeding other GPUs would take memory on each of them.
    """
    with _GENERATORS, torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        derived = derive_seed(seed, round=round, client=client, purpose=purpose)
        if device is not None and device.type == "cpu":
            # Not torch.manual_seed, which formats the stack of callers once for each kind of GPU that is not in use.
            torch.default_generator.manual_seed(derived)
        else:
            torch.manual_seed(derived)
        yield


def _uncounted(num_images: int, step: Callable[[], Terms]) -> Terms:
    return step()


class Learner:
    """A module, set up by Fabric once, and its optimizer; both are kept for the life of the client.

    Args:
        fabric: Fabric of the process.
        module: a LightningModule, or any module for which `fit` gets a `loss`; moved to Fabric's device.
        optimizer: None takes the module's `configure_optimizers`, if the module has this method.
    """

    def __init__(self, fabric: Fabric, module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        self.module = module
        if optimizer is None and isinstance(module, LightningModule):
            configured = module.configure_optimizers()
            assert isinstance(configured, torch.optim.Optimizer)
            optimizer = configured
        self.optimizer = optimizer
        fabric.setup(module)
        # Without mixed precision Fabric's context does nothing, and costs as many calls as the rest of a step.
        self._autocast = fabric.autocast if isinstance(fabric.strategy.precision, MixedPrecision) else nullcontext

    def fit(
        self,
        batches: Iterable[Sequence[Tensor]],
        loss: Loss | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        counted: Counted = _uncounted,
    ) -> dict[str, float]:
        """Steps once per batch, in train mode.

        Args:
            batches: sequences of tensors whose first dimension is the images.
            loss: computes the loss from the tensors of a batch; None takes the module's `training_step`. Either returns
                a tensor, or a mapping of terms with the key `loss`.
            optimizer: replaces the module's optimizer in this call.
            counted: runs each step up to its gradients, perhaps twice.

        Returns:
            The mean over images of every term; empty without an image. A mean is not finite if a value is not finite.

        Raises:
            TypeError: the loss is no tensor of one number that depends on weights.
            ValueError: there is no optimizer, or neither a `loss` nor a `training_step`.
        """
        stepper = self.optimizer if optimizer is None else optimizer
        if stepper is None or (loss is None and not isinstance(self.module, LightningModule)):
            lacking = "an optimizer" if stepper is None else "a loss, or a LightningModule with training_step"
            raise ValueError(f"{type(self.module).__name__} cannot be trained: fit needs {lacking}.")
        self.module.train()
        weights = [weight for group in stepper.param_groups for weight in group["params"]]
        means = _Means()
        with _kernels_for_all_weights(stepper):
            for index, batch in enumerate(batches):
                num_images = batch[0].shape[0]
                terms = counted(num_images, partial(self._gradients, weights, batch, index, loss))
                stepper.step()
                means.add(terms, num_images)
        return means.value()

    def _gradients(self, weights: Sequence[Tensor], batch: Sequence[Tensor], index: int, loss: Loss | None) -> Terms:
        """Computes the gradients of a step; returns the terms of the loss without their graph."""
        # Not `zero_grad`, which records each call for PyTorch's profiler: the record costs more than the reset.
        for weight in weights:
            weight.grad = None
        module: Any = self.module
        # Not through Fabric's wrappers, which cost time in each step and on one device add autocast alone.
        with self._autocast():
            found = module.training_step(batch, index) if loss is None else loss(*batch)
        terms: Terms = {"loss": found} if isinstance(found, Tensor) else found
        loss_term = self._loss_of(terms)
        loss_term.backward()
        # Detached, so that the memory of the graph serves the next step. A loss of one term is that term.
        value = loss_term.detach()
        return {name: value if term is loss_term else term.detach() for name, term in terms.items()}

    def _loss_of(self, terms: object) -> Tensor:
        """Returns the term `loss`; raises a TypeError for a loss that cannot be minimised."""
        name, fix = type(self.module).__name__, "Return a tensor, or a mapping of tensors with the key `loss`."
        if not isinstance(terms, Mapping):
            raise TypeError(f"the loss of {name} is of the type {type(terms).__name__}. {fix}")
        for term, value in terms.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"the term {term} of the loss of {name} is of the type {type(value).__name__}. {fix}")
        if "loss" not in terms:
            raise TypeError(f"the loss of {name} has the terms {', '.join(terms)}, and none is `loss`. {fix}")
        loss: Tensor = terms["loss"]
        if loss.numel() != 1:
            raise TypeError(f"the loss of {name} has the shape {tuple(loss.shape)}. Return its mean over the images.")
        if not loss.requires_grad:
            raise TypeError(
                f"the loss of {name} does not depend on weights. Compute it with the module, outside of no_grad."
            )
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights and the state of the optimizer, if any, as tensors and plain values."""
        state = {"module": self.module.state_dict()}
        return state if self.optimizer is None else {**state, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a `state_dict`."""
        self.module.load_state_dict(state["module"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _kernels_for_all_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Makes Adam, AdamW and SGD call PyTorch's kernels once for all weights, with the bits of a call for each weight.

    Only for the length of a block, because the flag is part of the optimizer's state, and so of checkpoints.
    """
    groups = optimizer.param_groups
    takes_flag = isinstance(optimizer, torch.optim.Adam | torch.optim.SGD) and all(
        group["foreach"] is None and not group["fused"] and not isinstance(group["lr"], Tensor) for group in groups
    )
    if not takes_flag:
        yield
        return
    try:
        for group in groups:
            group["foreach"] = True
        yield
    finally:
        # Not `groups`, which a restore of the optimizer replaces.
        for group in optimizer.param_groups:
            group["foreach"] = None


class _Means:
    """Means over images of the terms of all steps; waits for the device once a term, not in each step."""

    def __init__(self) -> None:
        self._steps: dict[str, list[tuple[int, Tensor]]] = {}
        self._num_images = 0

    def add(self, terms: Mapping[str, Tensor], num_images: int) -> None:
        """Adds the terms of a step; a term may be a weight, which the next step changes."""
        self._num_images += num_images
        loss = terms["loss"]
        copied = loss.clone()
        for name, value in terms.items():
            self._steps.setdefault(name, []).append((num_images, copied if value is loss else value.clone()))

    def value(self) -> dict[str, float]:
        """Returns the mean of each term; empty without an image."""
        if self._num_images == 0:
            return {}
        means = {}
        for name, steps in self._steps.items():
            total = 0.0
            sizes, values = zip(*steps, strict=True)
            # In the order of the steps, so that no bit depends on the way in which a library divides a sum.
            for size, value in zip(sizes, torch.stack(values).double().flatten().tolist(), strict=True):
                total += value * size
            means[name] = total / self._num_images
        return means


def state_digest(*states: Mapping[str, Tensor | Value]) -> str:
    """Returns the SHA-256 over names and bytes of all tensors, arrays and numbers: equal digests mean equal bits."""
    digest = hashlib.sha256()
    for state in states:
        for name, value in state.items():
            digest.update(name.encode())
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def weights_digest(*modules: nn.Module) -> str:
    """Returns the SHA-256 over the names and bytes of all weights of the modules."""
    return state_digest(*(module.state_dict() for module in modules))
