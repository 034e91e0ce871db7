"""The one local loop: Fabric drives a LightningModule over batches that lie in memory."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning import Fabric, LightningModule
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor

from fedvtc.learning.seeding import derive_seed

Precision = Literal["32-true", "bf16-mixed"]


def make_fabric(device: torch.device, precision: Precision = "32-true") -> Fabric:
    """A Fabric for one device of this process; never the one of a rank, which a process beside it may hold.

    Args:
        device: where modules are moved.
        precision: of training steps; what is called on a module itself, and not through a `Learner`, is float32.
    """
    devices = [device.index or 0] if device.type == "cuda" else 1
    # Not by its name: Lightning would print a line for every client.
    plugins = None if precision == "32-true" else MixedPrecision(precision, device.type)
    return Fabric(accelerator=device.type, devices=devices, plugins=plugins)


@contextmanager
def keyed_randomness(
    seed: int, *, round: int, client: int, purpose: str, device: torch.device | None = None
) -> Iterator[None]:
    """PyTorch's global generators run from one key inside, and are as before outside.

    The generators are those of the CPU and of `device`; others are not touched, for that alone takes memory on a GPU.
    """
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, round=round, client=client, purpose=purpose))
        yield


class Learner:
    """A LightningModule and its optimizer, set up by Fabric once and kept for the life of the client.

    Args:
        fabric: of the process.
        module: moved to Fabric's device; its `training_step` returns a mapping of terms that has `loss`.
        optimizer: None takes the module's own.
    """

    def __init__(self, fabric: Fabric, module: LightningModule, optimizer: torch.optim.Optimizer | None = None) -> None:
        chosen = optimizer or module.configure_optimizers()
        assert isinstance(chosen, torch.optim.Optimizer)
        self._fabric, self.module = fabric, module
        self._wrapped, self.optimizer = fabric.setup(module, chosen)

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> dict[str, float]:
        """Steps once per batch, in train mode.

        Returns:
            The mean over images of every term; empty without a batch. Not finite where a loss was not.
        """
        self.module.train()
        sums: dict[str, Tensor] = {}
        num_images = 0
        for index, batch in enumerate(batches):
            self.optimizer.zero_grad()
            # On one device Fabric leaves this to the caller, but for `forward`.
            with self._fabric.autocast():
                terms: dict[str, Tensor] = self._wrapped.training_step(batch, index)
            self._fabric.backward(terms["loss"])
            self.optimizer.step()
            size = len(batch[0])
            num_images += size
            for name, value in terms.items():
                weighted = value.detach().double() * size
                sums[name] = sums[name] + weighted if name in sums else weighted
        return {name: float(total) / num_images for name, total in sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer state, of tensors and plain values."""
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def weights_digest(*modules: LightningModule) -> str:
    """SHA-256 over names and bytes of all weights: equal digests mean the same bits."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
