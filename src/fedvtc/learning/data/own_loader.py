"""Reads a data set by a function of the user's own, which returns the arrays of an .npz file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedvtc.config.own_code import SIGNATURES, OwnCodeError, fault, own_function
from fedvtc.config.schema import DataConfig
from fedvtc.errors import FAILURES, reason
from fedvtc.learning.data.npz import read_arrays
from fedvtc.learning.data.readers import Loaded

SIGNATURE = SIGNATURES["data"]


def read_own(path: str, config: DataConfig) -> Loaded:
    """Calls the function with `data.path`, or with None, and reads the mapping of arrays that the function returns.

    Args:
        path: the function, `package.module:name`.
        config: the data set.

    Raises:
        OwnCodeError: the function cannot be imported or fails, or returns no mapping of arrays.
        DataError: an array is absent or wrong.
    """
    load = own_function(path, SIGNATURE)
    try:
        returned = load(None if config.path is None else Path(config.path).expanduser())
    except FAILURES as error:
        raise OwnCodeError(f"{path} raises {fault(error)}", f"The function is called as {SIGNATURE}.") from None
    if not isinstance(returned, Mapping):
        what = f"{path} returns {type(returned).__name__}, not a mapping of names to arrays"
        raise OwnCodeError(what, f"Write a function {SIGNATURE}.")
    arrays = {}
    for name, array in returned.items():
        try:
            arrays[str(name)] = np.asarray(array)
        except FAILURES as error:
            raise OwnCodeError(f"{path}: {name} is no array ({reason(error)})", "Return arrays of NumPy.") from None
    return read_arrays(path, arrays, config.pixel_max)
