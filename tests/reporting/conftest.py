"""Run folders written without a run: with given records, or with numbers that are easy to work out by hand."""

import csv
import json

import numpy as np
import pytest

from fedvtc.config import load, to_yaml
from fedvtc.learning.methods import config_classes
from fedvtc.learning.metrics import aggregate, evaluate_confusion
from fedvtc.storage.confusions import Evaluated, add_confusions
from fedvtc.storage.run_folder import RunFolder


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


def write_measured_run(
    parent, label, seed, *, num_clients=4, num_classes=3, num_rounds=3, is_finished=True, right=0.5, **config
):
    """Writes a finished run: client k classifies `right` + 0.1 x round of ten images of every class correctly."""
    name = f"{label}-{seed}-{len(list(parent.iterdir())) if parent.exists() else 0}"
    settings = {
        "run": {"seed": seed, "rounds": num_rounds, "name": name},
        "method": {"name": label.lower(), "label": label},
        "partition": {"alpha": 0.1},
        "tracking": {"trackers": [f"mine:{seed}"]},
    } | config
    folder = RunFolder.create(parent, name, settings)
    classes = {f"class {number}": {"train": 10, "test": 10} for number in range(num_classes)}
    folder.save_data({"hash": "0", "classes": classes})
    labels = np.repeat(np.arange(num_classes), 10 * num_clients)
    # Client k holds all classes but the class of its number.
    parts = [np.nonzero(labels != client % num_classes)[0][:: num_clients + 1] for client in range(num_clients)]
    folder.save_partition(parts, labels)
    records, rows = [], []
    for round in range(1, num_rounds + 2):
        is_final = round > num_rounds
        counts_KCC = np.zeros((num_clients, num_classes, num_classes), np.uint32)
        for client in range(num_clients):
            num_right = min(10, round_half(10 * right) + min(round, num_rounds) + is_final)
            for true in range(num_classes):
                counts_KCC[client, true, true] = num_right
                counts_KCC[client, true, (true + 1) % num_classes] += 10 - num_right
        counts_KC = [np.bincount(labels[part], minlength=num_classes) for part in parts]
        own = [evaluate_confusion(*pair) for pair in zip(counts_KCC, counts_KC, strict=True)]
        head = {"round": min(round, num_rounds), "phase": "final" if is_final else "round"}
        record = head | aggregate(own) | {"loss/train": 1 / round, "time/train": 2.0, "time/round": 1.5}
        record |= {"bytes/up/prototypes": 500_000, "bytes/down/prototypes": 250_000, "memory/peak_bytes": 2e9}
        record |= {
            "cpu/train": 1.5,
            "cpu/client": 1.75,
            "cpu/server": 0.25,
            "flops/train": 3e12,
            "flops/server/mix": 1e12,
            "memory/train": 1e9 + 1e8 * round,
            "memory/gpu/train": 5e8,
            "memory/evaluate": 1.5e9,
        }
        if round == 2:
            record |= {"incidents/processes_lost": 1, "incidents": ["client 1 was <lost>"]}
        if is_final and not is_finished:
            break
        records.append(record)
        for client, values in enumerate(own):
            facts = {"client": client, "backbone": ("cnn", "vit")[client % 2], "num_images": len(parts[client])}
            rows.append(head | facts | {"num_classes": num_classes - 1} | values)
        add_confusions(folder.path, {Evaluated(None if is_final else round): counts_KCC})
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with (folder.path / "clients.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if is_finished:
        folder.set_status("finished")
    return folder.path


def round_half(value):
    return int(value + 0.5)


@pytest.fixture(scope="session", name="write_measured_run")
def write_measured_run_fixture():
    """The function `write_measured_run`."""
    return write_measured_run


@pytest.fixture
def fake_run(tmp_path):
    """A function that writes a run folder into `tmp_path / "runs"`, see `write_measured_run`."""

    def make(label, seed, **keys):
        return write_measured_run(tmp_path / "runs", label, seed, **keys)

    return make
