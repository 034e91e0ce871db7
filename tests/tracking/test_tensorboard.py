"""The event files hold the numbers of metrics.jsonl."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fedvtc.config import load
from fedvtc.learning.methods import config_classes
from fedvtc.tracking import RunInfo
from fedvtc.tracking.record_files import JsonlTracker
from fedvtc.tracking.tensorboard import TensorBoardTracker


def events(file):
    """Yields the events of one file; its format is length, check, data, check."""
    content = file.read_bytes()
    place = 0
    while place < len(content):
        (num_bytes,) = struct.unpack_from("<Q", content, place)
        event = Event()
        event.ParseFromString(content[place + 12 : place + 12 + num_bytes])
        yield event
        place += 16 + num_bytes


def shown(folder):
    """Values that TensorBoard shows, by name and step, without values that a later attempt has purged."""
    values = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                values = {key: value for key, value in values.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in values
                values[value.tag, event.step] = value
    return values


def record(round, phase="round", **values):
    return {"round": round, "phase": phase, "loss/train": 0.1 * round, "bytes/up/generator": 500_000, **values}


@pytest.fixture
def run(tmp_path):
    config = load([], ["evaluate.every=1", "tracking.clients_every=2"], methods=config_classes())
    counts_KC = np.ones((2, 2), dtype=np.int64)
    return RunInfo("id", "run", tmp_path, config, {}, counts_KC, ["cnn", "vit"])


def attempt(run, records):
    """Logs the records of one attempt, as the coordinator does."""
    trackers = (JsonlTracker(), TensorBoardTracker(["a", "b"]))
    for tracker in trackers:
        tracker.start(run)
    clients = [{"client": 0, "accuracy": 0.25}, {"client": 1, "accuracy": 0.75}]
    for each in records:
        for tracker in trackers:
            tracker.log(each, clients)
    return trackers


def test_every_number_is_shown_once_also_after_a_killed_attempt(run):
    # A killed attempt calls no `finish`, but its values are on disk.
    lost = attempt(run, [record(1), record(2), record(3, **{"test/accuracy/mean": 0.9})])
    done = attempt(
        replace(run, resumed_round=1),
        [record(2), record(3, **{"test/accuracy/mean": 0.3}), record(3, "final", incidents=["lost"])],
    )
    for tracker in done:
        tracker.finish("finished")

    expected, total_bytes = {}, 0
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        each = json.loads(line)
        total_bytes += each["bytes/up/generator"]
        prefix = "final/" if each["phase"] == "final" else ""
        for name, value in {**each, "bytes/total_mb": total_bytes / 1e6}.items():
            if name not in ("round", "phase", "incidents"):
                expected[prefix + name, each["round"] + bool(prefix)] = float(np.float32(value))
    values = shown(run.folder)
    scalars = {key: value.simple_value for key, value in values.items() if value.WhichOneof("value") == "simple_value"}
    assert scalars == expected
    assert expected["test/accuracy/mean", 3] == float(np.float32(0.3))
    histograms = [key for key, value in values.items() if value.WhichOneof("value") == "histo"]
    # Round 2, and the final record after round 3.
    assert histograms == [("clients/accuracy", 2), ("final/clients/accuracy", 4)]
    last = values["final/clients/accuracy", 4].histo
    assert (last.num, last.sum) == (2, 1.0)
    for tracker in lost:
        tracker.finish("failed")


def test_every_number_is_on_disk_when_log_returns(run):
    (_, tracker) = attempt(run, [])
    for round in range(1, 6):
        values = {f"client/{client}/loss": 0.5 for client in range(9)}
        tracker.log(record(round, **values), [])
        assert values.keys() <= {name for name, step in shown(run.folder) if step == round}
    tracker.finish("finished")


@pytest.mark.parametrize("num_more", [0, 1])
def test_a_final_record_is_hidden_when_the_run_is_resumed(run, num_more):
    """The run was killed after its final record, or gets another round."""
    accuracy = {"test/accuracy/mean": 0.5}
    first = [record(1), record(2, **accuracy), record(2, "final", **accuracy, incidents=["lost"])]
    second = [*[record(3)] * num_more, record(2 + num_more, "final", **accuracy)]
    for resumed_round, records in ((None, first), (2, second)):
        for tracker in attempt(replace(run, resumed_round=resumed_round), records):
            tracker.finish("finished")
    values = shown(run.folder)
    assert {step for name, step in values if name.startswith("final/")} == {3 + num_more}
    assert [step for name, step in values if name == "loss/train"] == list(range(1, 3 + num_more))
    assert not any(name.startswith("incidents") for name, _ in values)


def test_pictures_have_the_size_that_their_summary_names(run):
    tracker = TensorBoardTracker(["a", "b"])
    tracker.start(run)
    tracker.show_samples(4, np.full((4, 1, 8, 8), 200, dtype=np.uint8), [0, 0, 1, 1])
    tracker.finish("finished")
    picture = shown(run.folder)["samples", 4].image
    assert np.asarray(Image.open(io.BytesIO(picture.encoded_image_string))).shape == (picture.height, picture.width, 3)


@pytest.mark.parametrize("resumed_round", [3, 2])
def test_rounds_before_the_first_event_file_are_written_once(run, resumed_round):
    """The run took over three rounds, or two of them, from another run, and is then resumed as usual."""
    taken_over = [record(round, **{"test/accuracy/mean": round / 10}) for round in (1, 2, 3)]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in taken_over))
    (run.folder / "clients.csv").write_text("round,phase,client,accuracy\n2,round,0,0.25\n2,round,1,0.75\n")
    for tracker in attempt(replace(run, resumed_round=resumed_round), []):
        tracker.finish("failed")

    def steps(name):
        return [step for tag, step in shown(run.folder) if tag == name]

    rounds = list(range(1, resumed_round + 1))
    assert steps("loss/train") == steps("test/accuracy/mean") == steps("bytes/total_mb") == rounds
    assert steps("clients/accuracy") == [2]
    values = shown(run.folder)
    assert [values["bytes/total_mb", round].simple_value for round in rounds] == [round / 2 for round in rounds]

    # `shown` asserts that no step is written twice.
    for tracker in attempt(replace(run, resumed_round=resumed_round), [record(resumed_round + 1)]):
        tracker.finish("finished")
    assert steps("loss/train") == [*rounds, resumed_round + 1]
