"""Run folders for tests of tables and lists."""

import json

import pytest

from fedvtc.config import load, to_yaml
from fedvtc.learning.methods import config_classes


@pytest.fixture(scope="session")
def write_run():
    """A function that writes a run folder; keywords replace keys of run.json."""
    texts = {}

    def write(folder, overrides, records, **run):
        folder.mkdir(parents=True)
        key = tuple(overrides)
        if key not in texts:
            texts[key] = to_yaml(load([], overrides, methods=config_classes()))
        description = {"id": "0a", "name": folder.name, "status": "finished", "created": "2026-01-01", **run}
        (folder / "run.json").write_text(json.dumps(description))
        (folder / "config.yaml").write_text(texts[key])
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return folder

    return write
