"""Takes the state of an idle client out of memory, and puts the state back bit for bit.

The client itself stays: its modules, its optimizers, and the names in its memory. So the construction of a client,
which takes as long as the training of a small client, is not repeated.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient

Buffers = Sequence[memoryview]


class _Place(NamedTuple):
    """The place of a tensor in its storage."""

    path: tuple[Any, ...]
    storage: int
    offset: int
    size: torch.Size
    stride: tuple[int, ...]


class _ArrayPlace(NamedTuple):
    """An array of the memory."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Layout(NamedTuple):
    """The form of a client's state without its bytes; two states of one layout may be written over each other."""

    places: tuple[_Place, ...]
    storage_bytes: tuple[int, ...]
    arrays: tuple[_ArrayPlace, ...]


class ClientBytes:
    """The bytes of a client's state: weights, buffers, optimizers and arrays of the memory. Gradients are dropped.

    Args:
        client: the client, which must be idle.

    Attributes:
        layout: the form of the state.
        num_bytes: number of bytes.
    """

    def __init__(self, client: FederatedClient) -> None:
        self._client = client
        self._tensors: list[Tensor] = []
        storages: dict[int, tuple[int, torch.UntypedStorage]] = {}
        places = []
        for path, tensor in _tensors(client):
            tensor.grad = None
            storage = tensor.untyped_storage()
            # Tensors may share a storage, and share the storage again when they are filled.
            number, _ = storages.setdefault(storage.data_ptr() or -id(tensor), (len(storages), storage))
            places.append(_Place(path, number, int(tensor.storage_offset()), tensor.size(), tensor.stride()))
            self._tensors.append(tensor)
        self._storages = [storage for _, storage in storages.values()]
        self._arrays = {name: value for name, value in client.memory.items() if isinstance(value, np.ndarray)}
        self.layout = Layout(
            tuple(places),
            tuple(storage.nbytes() for storage in self._storages),
            tuple(_ArrayPlace(name, array.shape, array.dtype.str) for name, array in self._arrays.items()),
        )
        self.num_bytes = sum(self.layout.storage_bytes) + sum(array.nbytes for array in self._arrays.values())

    def save(self, write: Callable[[Buffers], None]) -> None:
        """Passes the bytes to `write`; they stay in memory until `drop`, and as long as a buffer is kept."""
        # Storages on a GPU pass through the memory of the CPU.
        storages = [storage.cpu() for storage in self._storages]
        write([*map(_view_of_storage, storages), *map(_view_of_array, self._arrays.values())])

    def drop(self) -> None:
        """Removes the bytes from memory; if a signal interrupts this function, `fill` still puts all bytes back."""
        for tensor in self._tensors:
            tensor.data = tensor.data.new_empty(0)
        for name, array in self._arrays.items():
            # The name keeps its place, because the order of names enters digests and checkpoints.
            self._client.memory[name] = np.empty(0, array.dtype)
        self._storages, self._arrays = [], {}

    def fill(self, read: Callable[[Buffers], None]) -> None:
        """Puts the bytes back, which `read` writes into buffers of the same sizes."""
        storages = [torch.UntypedStorage(num_bytes) for num_bytes in self.layout.storage_bytes]
        arrays = {place.name: np.empty(place.shape, np.dtype(place.dtype)) for place in self.layout.arrays}
        read([*map(_view_of_storage, storages), *map(_view_of_array, arrays.values())])
        device = self._client.device
        if device.type != "cpu":
            storages = [storage.to(device=device) for storage in storages]
        for place, tensor in zip(self.layout.places, self._tensors, strict=True):
            tensor.data = tensor.data.new_empty(0).set_(storages[place.storage], place.offset, place.size, place.stride)
        for name, array in arrays.items():
            self._client.memory[name] = array


def _tensors(client: FederatedClient) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yields each tensor of the client once, with a path that tells the tensor apart from all others."""
    seen = set()
    for name, module in client.modules.items():
        optimizer = client.optimizer(name)
        moments = {} if optimizer is None else {id(weight): state for weight, state in optimizer.state.items()}
        for path, tensor in [
            *((("module", id(tensor)), tensor) for tensor in [*module.parameters(), *module.buffers()]),
            *_leaves((name,), moments),
        ]:
            if id(tensor) not in seen and tensor.layout is torch.strided:
                seen.add(id(tensor))
                yield path, tensor


def _leaves(path: tuple[Any, ...], tree: Any) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves((*path, key), value)
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from _leaves((*path, place), value)


def _view_of_storage(storage: torch.UntypedStorage) -> memoryview:
    if not storage.nbytes():
        return memoryview(bytearray())
    # Not through NumPy, which would mark the storage as shared for good.
    chars = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    # The view keeps the bytes in memory: a thread may write them after the client has been emptied.
    chars.storage = storage  # type: ignore[attr-defined]
    return memoryview(chars).cast("B")


def _view_of_array(array: np.ndarray[Any, Any]) -> memoryview:
    # An array of the memory is contiguous, so this is a view.
    return array.ravel().view(np.uint8).data
