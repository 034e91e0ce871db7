"""Exports the last broadcast: statistics, generators and all other arrays that the clients received."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fedvtc.commands.export.files import write_json
from fedvtc.federation.finished import FinishedRun

MEANINGS = {
    "prototypes": "mean features of each class over all clients: `classes`, `count` of images, `mean`",
    "covariance": "spread of features: `spread` as standard deviations, or as lower Cholesky factors (K, D, D); as"
    " `triangle`, the numbers of a factor up to its diagonal, row by row",
    "mixture": "one Gaussian of features per client and class: `classes`, `count` of images, `mean`, `spread` or"
    " `triangle`, and the client as `owner`",
    "generator": "weights of the mean generator",
    "generators": "weights of the generator of each client, by `owner` of the mixture, in the first dimension",
    "images": "the generated set: `pixels` from 0 to 255, and `labels`",
}
"""Meaning of the kinds of payload that describe data; the page of a method has the other kinds."""


def save_broadcast(run: FinishedRun, folder: Path) -> list[str]:
    """Writes the arrays of the last broadcast into `statistics/`; returns a line, or none if there is no array."""
    parts = {"": run.broadcast.payload, **{f"{name}/": group for name, group in run.broadcast.groups.items()}}
    arrays: dict[str, NDArray[np.generic]] = {}
    for start, payload in parts.items():
        for kind, named in payload.items():
            # A safetensors file holds contiguous arrays only.
            arrays |= {f"{start}{kind}/{name}": np.ascontiguousarray(array) for name, array in named.items()}
    if not arrays:
        return []
    (folder / "statistics").mkdir()
    (folder / "statistics/broadcast.safetensors").write_bytes(save(arrays))
    kinds = list(run.broadcast.payload)
    about = {
        "round": run.broadcast.round,
        "method": run.config.method.name,
        "kinds": {kind: MEANINGS.get(kind, "see the page of the method") for kind in kinds},
        "arrays": {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in arrays.items()},
    }
    write_json(folder / "statistics/broadcast.json", about)
    return [f"last broadcast: {', '.join(kinds) or 'values by architecture'}"]
