"""Writes trees of tensors with PyTorch and reads them back without running any code from the file.

A tree is a tensor, a string, a number, a truth value or None, or a mapping, list or tuple of trees.
"""

import io
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints.shard_file import Sink

_PLAIN = (str, int, float, bool, type(None))


def write_tree(tree: Any, file: Sink) -> None:
    """Writes a tree, such as the `state_dict()` of a module or an optimizer, for `read_tree`.

    Tensors of any device are read back on the CPU, mappings as dicts.

    Raises:
        TypeError: if the tree holds another type, which `read_tree` would refuse.
        OSError: if the file cannot be written.
    """
    try:
        torch.save(_map_leaves(_for_disk, tree), cast(IO[bytes], file))
    except RuntimeError as error:
        # After an error of the file, PyTorch still ends its archive and raises a second error about the size.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_tree(content: bytes, where: str = "checkpoint") -> Any:
    """Reads a tree of `write_tree` into new, writable tensors on the CPU.

    Args:
        content: the bytes that `write_tree` wrote.
        where: name of the file in error messages.

    Raises:
        CheckpointError: if the content is damaged or holds code.
    """
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # A damaged archive raises anything from EOFError to RuntimeError.
        raise CheckpointError(
            f"{where}: is damaged, or holds code, which is never run ({type(error).__name__}). "
            "An older checkpoint may be whole."
        ) from error


def arrays_to_tensors(tree: Any) -> Any:
    """Converts the arrays of a tree to tensors of the same type and shape; shares memory if PyTorch can.

    Raises:
        TypeError: if PyTorch has no counterpart of an array's type, such as text.
    """
    return _map_leaves(lambda leaf: _to_tensor(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, tree)


def tensors_to_arrays(tree: Any) -> Any:
    """Converts the tensors of a tree to arrays without a copy; NumPy scalars come back as arrays of no dimension."""
    return _map_leaves(lambda leaf: leaf.numpy() if isinstance(leaf, Tensor) else leaf, tree)


def _map_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _map_leaves(change, value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_map_leaves(change, value) for value in tree)
    return change(tree)


def _to_tensor(array: np.ndarray[Any, Any] | np.generic) -> Tensor:
    array = np.asarray(array)
    # PyTorch warns about read-only memory (Ray's store) and cannot share negative strides.
    shareable = array.flags.c_contiguous and array.flags.writeable
    return torch.from_numpy(array if shareable else array.copy(order="C"))


def _for_disk(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        if type(leaf) not in _PLAIN:
            raise TypeError(f"a checkpoint cannot hold {type(leaf).__name__}, only tensors and plain values")
        return leaf
    tensor = leaf.detach().cpu()
    # PyTorch saves a view with its whole storage.
    is_whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_whole else tensor.clone()
