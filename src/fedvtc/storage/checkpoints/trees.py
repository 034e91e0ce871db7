"""Trees in files: what clients and server remember, written by PyTorch and read back without running any code.

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
    """Writes the tree for `read_tree`, straight from its tensors; those of any device become tensors of the CPU.

    Mappings come back as dicts. Modules' and optimizers' `state_dict()`s are trees.

    Raises:
        TypeError: it holds something else, which `read_tree` would refuse.
        OSError: the file does not take it.
    """
    try:
        torch.save(_map_leaves(_for_disk, tree), cast(IO[bytes], file))
    except RuntimeError as error:
        # Where the file fails, PyTorch still tries to end its archive, and complains that it is not what it should be.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_tree(content: bytes, where: str = "checkpoint") -> Any:
    """The inverse of `write_tree`: fresh, writable tensors on the CPU.

    Args:
        content: as `write_tree` wrote it.
        where: named in the error.

    Raises:
        CheckpointError: it is damaged, or holds more than data.
    """
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # What a damaged archive raises is anything from EOFError to RuntimeError.
        raise CheckpointError(
            f"{where}: is damaged, or holds code, which is never run ({type(error).__name__}). "
            "An older checkpoint may be whole."
        ) from error


def arrays_to_tensors(tree: Any) -> Any:
    """A tree whose arrays are tensors of the same type and shape; memory is shared where PyTorch can.

    Raises:
        TypeError: an array's type, such as text, has no counterpart.
    """
    return _map_leaves(lambda leaf: _to_tensor(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, tree)


def tensors_to_arrays(tree: Any) -> Any:
    """The inverse of `arrays_to_tensors`, without a copy; NumPy's scalars come back as arrays of no dimension."""
    return _map_leaves(lambda leaf: leaf.numpy() if isinstance(leaf, Tensor) else leaf, tree)


def _map_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _map_leaves(change, value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_map_leaves(change, value) for value in tree)
    return change(tree)


def _to_tensor(array: np.ndarray[Any, Any] | np.generic) -> Tensor:
    array = np.asarray(array)
    # PyTorch warns of read-only memory (Ray's store) and cannot take negative strides.
    shareable = array.flags.c_contiguous and array.flags.writeable
    return torch.from_numpy(array if shareable else array.copy(order="C"))


def _for_disk(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        if type(leaf) not in _PLAIN:
            raise TypeError(f"a checkpoint cannot hold {type(leaf).__name__}, only tensors and plain values")
        return leaf
    tensor = leaf.detach().cpu()
    # A view is saved with the whole storage behind it.
    is_whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_whole else tensor.clone()
