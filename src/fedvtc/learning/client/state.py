"""Everything that a client keeps from round to round: modules with their optimizers, and the memory."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fedvtc.errors import CheckpointError
from fedvtc.learning.client.loop import Learner, state_digest
from fedvtc.learning.client.memory import Memory

MEMORY = "memory"
"""Key of the memory beside the names of modules; absent from the state while the memory is empty."""


class ClientState:
    """Named learners and a memory.

    Args:
        client: number of the client, for errors.
    """

    def __init__(self, client: int) -> None:
        self._client = client
        self.learners: dict[str, Learner] = {}
        self.memory = Memory()

    def add(self, name: str, learner: Learner) -> None:
        """Adds a learner.

        Raises:
            ValueError: the name is in use.
        """
        if name in self.learners or name == MEMORY:
            raise ValueError(f"client.attach({name!r}): the name is in use. Choose another name.")
        self.learners[name] = learner

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of all learners, by name."""
        return {name: learner.module for name, learner in self.learners.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns weights and optimizers by module name, and the memory if not empty, as tensors and plain values."""
        state: dict[str, Any] = {name: learner.state_dict() for name, learner in self.learners.items()}
        return {**state, MEMORY: self.memory.state_dict()} if self.memory else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a `state_dict`.

        Raises:
            CheckpointError: the state has other modules.
        """
        saved, attached = sorted(state.keys() - {MEMORY}), sorted(self.learners)
        if saved != attached:
            raise CheckpointError(
                f"client {self._client}: the checkpoint holds the modules {', '.join(saved)}, the method attaches"
                f" {', '.join(attached)}. Resume with the code that the run began with."
            )
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])
        self.memory.load_state_dict(state.get(MEMORY, {}))

    def digest(self) -> str:
        """Returns the SHA-256 of all weights and of the memory; optimizers are left out."""
        return state_digest(*(learner.module.state_dict() for learner in self.learners.values()), self.memory)
