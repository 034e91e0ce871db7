"""The README of an export."""

from collections.abc import Sequence

from fedvtc.federation.finished import FinishedRun

README = """\
# Export of the run {name}

Method `{method}`, data set `{data}`, run id `{id}`.

{parts}

| folder | content |
|---|---|
| `models/` | weights of each client's model (`safetensors`), and a description: architecture, normalisation, classes |
| `programs/` | architectures as programs of `torch.export`, with weights of zero |
| `generators/` | weights and descriptions of the clients' image generators, if the method has them |
| `statistics/` | the last broadcast of the server: statistics of features, generators, heads |
| `synthetic/` | generated images with a data card |
{code}{notes}"""
CODE = """
A model in plain PyTorch; `pip install torch safetensors`:

```python
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

about = json.loads(Path("models/{example}.json").read_text())
model = torch.export.load(f"programs/{{about['program']}}").module()
model.load_state_dict(load_file(f"models/{{about['weights']}}"))

pixels = torch.zeros(1, {channels}, {side}, {side}, dtype=torch.uint8)  # your images
scores = model(pixels.float() / 127.5 - 1)
print(about["classes"][scores.argmax(dim=1)[0]])
```
"""


def readme(run: FinishedRun, parts: Sequence[str], notes: Sequence[str], example: str) -> str:
    """Returns the text: the parts, and how to load the example, if there is one."""
    dataset = run.population.dataset
    size = {"channels": dataset.num_channels, "side": dataset.image_size}
    return README.format(
        name=run.folder.name,
        id=run.folder.id,
        method=run.config.method.name,
        data=dataset.name,
        code=CODE.format(example=example, **size) if example else "",
        parts="\n".join(f"- {part}" for part in parts),
        notes="".join(f"\n{note}\n" for note in notes),
    )
