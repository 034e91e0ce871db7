"""Resuming: keys that may change, and results equal to an uninterrupted run after a stop, a loss or more rounds."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from fedvtc.config import load
from fedvtc.errors import CheckpointError, ConfigError, DataError, Interrupted, RunExistsError, RunFolderError
from fedvtc.federation.finished import finished_run
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.methods import config_classes
from fedvtc.learning.metrics import MEASURED
from fedvtc.storage.append import AppendFile
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.checkpoints.trees import read_tree
from fedvtc.storage.run_folder import RunFolder
from fedvtc.tracking.record_files import JsonlTracker

SOURCE = str(Path(__file__).parents[2] / "src")
NUM_CLIENTS, ROUNDS = 4, 5
SETTINGS = (
    "placement.pool=inline",
    f"run.rounds={ROUNDS}",
    "data.name=npz",
    "partition.alpha=1",
    f"population.num_clients={NUM_CLIENTS}",
    "population.backbones=[{name: cnn_2x8, share: 0.75}, {name: resnet8, share: 0.25}]",
    "population.feature_size=6",
    "training.batch_size=8",
    "evaluate.every=2",
    "evaluate.samples_every=2",
    "evaluate.samples_per_class=2",
)
SMALL_FEDVTC = (
    "method.generator.epochs=1",
    "method.generator.width=4",
    "method.finetune.epochs=1",
    "method.finetune.images_per_class=4",
)
FEDVTC = ("method.name=fedvtc", *SMALL_FEDVTC, "run.participation=0.5")
EXCHANGE = (
    "method.name=fedvtc",
    *SMALL_FEDVTC,
    "method.generator.aggregation=exchange",
    "method.finetune.latents=client_mixture",
    "method.finetune.when=both",
    # Client 3 takes part in rounds 2 and 5 only: the server has to remember it.
    "run.participation=0.5",
    "run.seed=2",
    "training.optimizer.name=sgd",
    "method.generator.optimizer.name=sgd",
)
LOCAL = ("method.name=local", "training.optimizer.name=sgd")
FEDPROTO = ("method.name=fedproto", "run.participation=0.5")
METHODS = {"local": LOCAL, "fedproto": FEDPROTO, "fedvtc": FEDVTC, "exchange": EXCHANGE}


# Whole runs.


@pytest.mark.slow
def test_a_run_with_relative_paths_resumes_from_another_folder(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_folder("relative"))
    paths = ["data.path=tiny.npz", "checkpoint.dir=saved", f"run.output_dir={tmp_path}"]
    config = load([], [*SETTINGS, *LOCAL, *paths, "run.rounds=1"], methods=config_classes())
    path = run_federation(config, plain=True).folder
    monkeypatch.chdir(tmp_path)

    summary = resume_federation(path, ["run.rounds=2"], plain=True)

    assert summary.record["round"] == 2
    assert [attempt.get("resumed_round") for attempt in RunFolder.open(path).attempts] == [None, 1]


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("resuming")


@pytest.fixture(scope="module")
def words_of(folder):
    """Returns the words of `fedvtc run` for a run of this name."""

    def make(name, *overrides):
        return [*SETTINGS, f"run.output_dir={folder}", f"data.path={folder}/tiny.npz", f"run.name={name}", *overrides]

    return make


@pytest.fixture(scope="module")
def start(words_of):
    """Runs a federation; returns its run folder."""

    def make(name, *overrides):
        config = load([], words_of(name, *overrides), methods=config_classes())
        return run_federation(config, plain=True).folder

    return make


@pytest.fixture(scope="module")
def undisturbed(start):
    """The run folder of an uninterrupted run, made once for the same words."""
    made = {}

    def get(*overrides):
        if overrides not in made:
            made[overrides] = start(f"undisturbed-{len(made)}", *overrides)
        return made[overrides]

    return get


@pytest.fixture(scope="module")
def stop(start, folder):
    """Runs a federation that gets a signal as it logs round 3; returns its run folder."""

    def make(name, *overrides):
        log = JsonlTracker.log

        def ask(self, record, clients):
            log(self, record, clients)
            if (record["round"], record["phase"]) == (3, "round"):
                signal.raise_signal(signal.SIGINT)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(JsonlTracker, "log", ask)
            with pytest.raises(Interrupted):
                start(name, *overrides)
        return folder / name

    return make


@pytest.fixture(scope="module")
def stopped(stop, folder):
    """A copy, under a new name, of a run that was stopped after round 3; each original is made once."""
    made = {}

    def copy(name, *overrides):
        if overrides not in made:
            made[overrides] = stop(f"stopped-{len(made)}", *overrides)
        return Path(shutil.copytree(made[overrides], folder / name))

    return copy


def results_of(path):
    """The records without times, memory, placement and incidents."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    others = (*MEASURED, "incidents")
    return [{key: value for key, value in json.loads(line).items() if not key.startswith(others)} for line in lines]


def described(path):
    return json.loads((path / "run.json").read_text())


def store_of(path, location=None):
    return CheckpointStore(location or path / "checkpoints")


def models_of(store):
    """The final states of the clients, by file."""
    final = next(manifest for manifest in store.manifests(pytest.fail) if manifest.phase == "final")
    return {shard.name: read_tree(store.read(final, shard.name)) for shard in final.shards if shard.name != "server.pt"}


def trees_are_equal(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(trees_are_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(trees_are_equal, first, second))
    return first == second


def pictures_of(path):
    return {picture.name: picture.read_bytes() for picture in (path / "samples").glob("*.png")}


def same_end(path, expected, store=None):
    assert described(path)["status"] == "finished"
    assert results_of(path) == results_of(expected)
    for name in ("clients.csv", "confusion.npz"):
        assert (path / name).read_bytes() == (expected / name).read_bytes()
    assert pictures_of(path) == pictures_of(expected)
    models = models_of(store or store_of(path))
    # A client that never worked has no file.
    assert NUM_CLIENTS - 1 <= len(models) <= NUM_CLIENTS
    assert trees_are_equal(models, models_of(store_of(expected)))
    return True


def untouched(path):
    """Content and time of every file except the lock, which every reader writes."""
    return {
        file.relative_to(path): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


# Kills the process of each run in round 3, when the record is written and the rows of clients are not.
LOST = """
import gc, json, os, sys
# Imported once, before the forks.
import fedvtc.learning.client.client, fedvtc.learning.methods.fedvtc.steps
from fedvtc.config import load
from fedvtc.learning.methods import config_classes
from fedvtc.federation.finished import finished_run
from fedvtc.federation.launch import run_federation
from fedvtc.tracking.record_files import JsonlTracker

log = JsonlTracker.log

def log_and_die(self, record, clients):
    log(self, record, clients)
    if record["round"] == 3:
        os._exit(9)

JsonlTracker.log = log_and_die
# Else the first collection of each fork copies the memory of all objects.
gc.freeze()
for words in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        run_federation(load([], words, methods=config_classes()), plain=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
"""
LOST_RUNS = {
    "lost-local": ("local", ()),
    "lost-fedproto": ("fedproto", ("checkpoint.every=2",)),
    "lost-fedvtc": ("fedvtc", ()),
    "lost-exchange": ("exchange", ("checkpoint.async=false",)),
    "lost-every-3": ("fedvtc", ("checkpoint.every=3", "checkpoint.async=false")),
    "lost-file": ("fedproto", ("checkpoint.dir=file://{folder}/elsewhere",)),
}


@pytest.fixture(scope="module")
def lost(words_of, folder):
    """The run folders of runs whose process was killed, by name."""
    runs = [
        words_of(name, *METHODS[method], *(word.format(folder=folder) for word in more))
        for name, (method, more) in LOST_RUNS.items()
    ]
    subprocess.run(
        [sys.executable, "-c", LOST, json.dumps(runs)],
        env=os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=200,
        capture_output=True,
    )
    return {name: folder / name for name in LOST_RUNS}


@pytest.mark.parametrize("name", LOST_RUNS)
def test_a_run_whose_process_was_killed_ends_like_an_uninterrupted_run(lost, undisturbed, capsys, folder, name):
    path, (method, more) = lost[name], LOST_RUNS[name]
    assert described(path)["status"] == "running"
    summary = resume_federation(path, plain=True)
    (elsewhere,) = (folder / "elsewhere").glob("*") if "dir" in str(more) else (None,)
    assert elsewhere is None or elsewhere.name == f"{name}-{described(path)['id']}"
    assert same_end(path, undisturbed(*METHODS[method]), elsewhere and store_of(path, elsewhere))
    assert (summary.folder, summary.record["phase"]) == (path, "final")
    _, attempt = described(path)["attempts"]
    num_done = attempt["resumed_round"]
    # The checkpoint of round 2 may not have been complete.
    assert num_done in {"checkpoint.every=2": (2, 0), "checkpoint.every=3": (0,)}.get((*more, "")[0], (1, 2))
    how = f"resuming after round {num_done} of {ROUNDS}" if num_done else "no checkpoint, starting over"
    assert f"{path}: {how}\n" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["fedvtc", "exchange"])
def test_a_finished_run_can_be_made_longer(start, undisturbed, method):
    path = start(f"longer-{method}", *METHODS[method], "run.rounds=2")
    assert [record["phase"] for record in results_of(path)] == ["round", "round", "final"]
    resume_federation(path, [f"run.rounds={ROUNDS}"], plain=True)
    assert same_end(path, undisturbed(*METHODS[method]))
    assert described(path)["attempts"][1]["resumed_round"] == 2
    assert load([path / "config.yaml"], [], methods=config_classes()).run.rounds == ROUNDS


def test_a_resume_may_lower_the_number_of_rounds(stopped, start):
    path = stopped("shorter", *LOCAL)
    resume_federation(path, ["run.rounds=3"], plain=True)
    expected = start("short", *LOCAL, "run.rounds=3")
    # Round 3 was not the last when it was logged, so it has no evaluation; the final record has one.
    assert [record["round"] for record in results_of(path) if "test/accuracy/mean" in record] == [2, 3]
    assert results_of(path)[-1] == results_of(expected)[-1]
    assert trees_are_equal(models_of(store_of(path)), models_of(store_of(expected)))


@pytest.mark.parametrize(("every", "async_"), [(1, "true"), (2, "false"), (4, "true")])
def test_a_signal_at_the_end_of_a_round_leaves_the_round_saved(stop, undisturbed, capsys, every, async_):
    more = (f"checkpoint.every={every}", f"checkpoint.async={async_}")
    path = stop(f"asked-{every}-{async_}", *FEDPROTO, *more)
    assert described(path)["status"] == "interrupted"
    assert f"fedvtc resume {path}" in capsys.readouterr().out.splitlines()[-1]
    assert store_of(path).newest_whole(pytest.fail).round == 3
    resume_federation(path, plain=True)
    assert same_end(path, undisturbed(*FEDPROTO))
    assert described(path)["attempts"][1]["resumed_round"] == 3


@pytest.mark.parametrize(
    ("every", "round", "saved"), [(1, 4, 3), (2, 4, 4), (5, 3, 3)], ids=["abandoned", "ended", "saved out of turn"]
)
def test_a_signal_inside_a_round_loses_no_completed_round(
    start, folder, undisturbed, capsys, monkeypatch, every, round, saved
):
    train = FederatedClient.train

    def ask(self, phase="train"):
        train(self, phase)
        if (self.id, self.round) == (2, round):
            signal.raise_signal(signal.SIGTERM)

    path = folder / f"asked-in-{round}-{every}"
    with monkeypatch.context() as patch:
        patch.setattr(FederatedClient, "train", ask)
        with pytest.raises(Interrupted) as interrupted:
            start(path.name, *LOCAL, f"checkpoint.every={every}")
    assert interrupted.value.signum == signal.SIGTERM
    may_end = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stopping after this round")]
    assert len(may_end) == (saved == round)
    assert [record["round"] for record in results_of(path)] == list(range(1, saved + 1))
    resume_federation(path, plain=True)
    assert same_end(path, undisturbed(*LOCAL))
    assert described(path)["attempts"][1]["resumed_round"] == saved


def test_the_reason_of_an_end_is_the_signal_also_where_ray_makes_it_a_plain_interrupt(start, folder, monkeypatch):
    train = FederatedClient.train

    def ask(self, phase="train"):
        train(self, phase)
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(FederatedClient, "train", ask)
    with pytest.raises(Interrupted) as interrupted:
        start("asked-of-ray", *LOCAL)
    assert interrupted.value.signum == signal.SIGTERM
    assert (described(folder / "asked-of-ray")["status"], described(folder / "asked-of-ray")["reason"]) == (
        "interrupted",
        "SIGTERM",
    )


def test_without_checkpoints_a_run_starts_over(stop, undisturbed, capsys):
    path = stop("over", *FEDPROTO, "checkpoint.every=null")
    assert not (path / "checkpoints").exists()
    resume_federation(path, plain=True)
    expected = undisturbed(*FEDPROTO)
    assert results_of(path) == results_of(expected)
    for name in ("clients.csv", "confusion.npz"):
        assert (path / name).read_bytes() == (expected / name).read_bytes()
    assert "no checkpoint, starting over" in capsys.readouterr().out
    assert not (path / "checkpoints").exists()


@pytest.fixture
def memory():
    yield "memory://checkpoints"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_checkpoints_in_an_object_store_resume(stop, undisturbed, memory):
    path = stop("in-memory", *FEDVTC, f"checkpoint.dir={memory}")
    store = store_of(path, f"{memory}/in-memory-{described(path)['id']}")
    assert not (path / "checkpoints").exists()
    assert store.newest_whole(pytest.fail).round == 3
    resume_federation(path, plain=True)
    assert same_end(path, undisturbed(*FEDVTC), store)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_skipped(stopped, undisturbed, capsys, golden):
    path = stopped("damaged", *FEDVTC)
    flip(path / "checkpoints/round_000003/client_0000.pt")
    resume_federation(path, plain=True)
    lines = capsys.readouterr().out.splitlines()
    (skipped,) = (line for line in lines if line.startswith("checkpoints/round_000003: client_0000.pt "))
    (resuming,) = (line for line in lines if line.startswith(f"{path}: resuming after round 2 of {ROUNDS}"))
    golden(f"{skipped}\n{resuming}", {str(path.parent): "OUTPUTS"})
    assert same_end(path, undisturbed(*FEDVTC))


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_kept(stopped, capsys, golden):
    path = stopped("ruined", *FEDVTC)
    rounds = sorted((path / "checkpoints").iterdir())
    assert len(rounds) >= 2
    for round in rounds:
        (round / "server.pt").unlink()
    before = untouched(path)
    with pytest.raises(CheckpointError) as error:
        resume_federation(path, plain=True)
    golden(error.value, {str(path.parent): "OUTPUTS"})
    assert untouched(path) == before
    skipped = capsys.readouterr().out.splitlines()
    assert sorted(line.split(":")[0] for line in skipped) == [f"checkpoints/{round.name}" for round in rounds]


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def without_final_checkpoint(patch):
    draft = CheckpointStore.draft
    patch.setattr(
        CheckpointStore,
        "draft",
        lambda self, folder, attempt: no_space() if folder == "final" else draft(self, folder, attempt),
    )


def without_end_of(name, mark):
    def apply(patch):
        write = AppendFile._write
        patch.setattr(
            AppendFile,
            "_write",
            lambda self, file, lines: (
                no_space() if self._path.name == name and mark in lines else write(self, file, lines)
            ),
        )

    return apply


END_LOST = {
    "checkpoint": without_final_checkpoint,
    "record": without_end_of("metrics.jsonl", b'"phase": "final"'),
    "rows": without_end_of("clients.csv", b",final,"),
}


@pytest.mark.parametrize("lost", END_LOST)
def test_a_resume_repeats_the_end_that_a_full_disk_lost(start, undisturbed, capsys, golden, monkeypatch, lost):
    with monkeypatch.context() as patch:
        END_LOST[lost](patch)
        path = start(f"without-{lost}", *FEDVTC)
    assert described(path)["status"] == "finished"
    capsys.readouterr()

    resume_federation(path, plain=True)

    golden(capsys.readouterr().out.splitlines()[0], {str(path): "RUN"})
    assert same_end(path, undisturbed(*FEDVTC))
    assert described(path)["attempts"][1]["resumed_round"] == ROUNDS
    before = untouched(path)
    resume_federation(path, plain=True)
    assert untouched(path) == before


def test_a_finished_run_whose_checkpoints_were_deleted_stays(undisturbed, folder, capsys, golden):
    path = Path(shutil.copytree(undisturbed(*FEDPROTO), folder / "deleted"))
    shutil.rmtree(path / "checkpoints")
    before = untouched(path)

    assert resume_federation(path, plain=True).record is None

    assert untouched(path) == before
    with pytest.raises(CheckpointError) as error, finished_run(path):
        pass
    golden(error.value, {str(folder): "OUTPUTS"})


def test_resuming_a_finished_run_changes_nothing(undisturbed, capsys, golden):
    path = undisturbed(*FEDPROTO)
    before = untouched(path)
    summary = resume_federation(path, ["checkpoint.keep=5"], plain=True)
    assert (summary.folder, summary.record) == (path, None)
    golden(capsys.readouterr().out, {str(path): "RUN"})
    assert untouched(path) == before


@pytest.mark.parametrize(
    "overrides",
    [["run.seed=1"], ["run.rounds=2"], ["run.sede=1"]],
    ids=["may not change", "too few rounds", "unknown"],
)
def test_a_wrong_override_is_refused_and_nothing_is_written(stopped, golden, keys_of, overrides):
    path = stopped(f"refused-{overrides[0]}", *LOCAL)
    before = untouched(path)
    with pytest.raises(ConfigError) as refused:
        resume_federation(path, overrides, plain=True)
    assert keys_of(refused.value) == [overrides[0].partition("=")[0]]
    golden(refused.value)
    assert untouched(path) == before


def test_other_images_with_equal_labels_are_refused(stopped, undisturbed, folder, golden, keys_of):
    path = stopped("black", *LOCAL)
    with np.load(folder / "tiny.npz") as arrays:
        tiny = dict(arrays)
    np.savez(folder / "copy.npz", **tiny)
    tiny["x_test"] = tiny["x_test"].copy()
    tiny["x_test"][4, 0, 3, 3] ^= 1
    np.savez(folder / "other.npz", **tiny)
    before = untouched(path)
    with pytest.raises(DataError) as refused:
        resume_federation(path, [f"data.path={folder}/other.npz"], plain=True)
    assert keys_of(refused.value) == [f"data.path={folder}/other.npz"]
    golden(refused.value, {str(folder): "FOLDER"})
    assert untouched(path) == before
    resume_federation(path, [f"data.path={folder}/copy.npz"], plain=True)
    assert same_end(path, undisturbed(*LOCAL))


def test_a_config_that_was_edited_is_refused(stopped, golden):
    path = stopped("by-hand", *LOCAL)
    file = path / "config.yaml"
    file.write_text(file.read_text().replace("epochs: 1", "epochs: 2"))
    before = untouched(path)
    with pytest.raises(CheckpointError) as error:
        resume_federation(path, plain=True)
    golden(error.value, {str(path.parent): "OUTPUTS"})
    assert untouched(path) == before


def test_checkpoints_of_another_run_are_refused(stopped, golden):
    path = stopped("another", *LOCAL)
    own = described(path)["id"]
    file = path / "run.json"
    file.write_text(file.read_text().replace(own, "0123abcd"))
    before = untouched(path)
    with pytest.raises(CheckpointError) as error:
        resume_federation(path, plain=True)
    golden(error.value, {str(path.parent): "OUTPUTS", own: "RUN_ID"})
    assert untouched(path) == before


def test_a_new_checkpoint_dir_without_the_checkpoints_is_refused(stopped, undisturbed, folder, golden):
    path = stopped("moved", *LOCAL)
    elsewhere = f"checkpoint.dir={folder}/moved-to"
    before = untouched(path)
    with pytest.raises(CheckpointError) as error:
        resume_federation(path, [elsewhere], plain=True)
    golden(error.value, {str(path.parent): "OUTPUTS", described(path)["id"]: "RUN_ID"})
    assert untouched(path) == before
    moved = folder / "moved-to" / "{name}-{id}".format(**described(path))
    moved.parent.mkdir()
    shutil.move(path / "checkpoints", moved)
    resume_federation(path, [elsewhere], plain=True)
    assert described(path)["attempts"][1]["resumed_round"] == 3
    assert same_end(path, undisturbed(*LOCAL), store_of(path, moved))


LOCKED = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_writes_is_refused(stopped):
    path = stopped("locked", *LOCAL)
    before = untouched(path)
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCKED, path / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunFolderError):
            resume_federation(path, plain=True)
        assert untouched(path) == before
        holder.stdin.close()


def test_a_job_that_restarts_resumes_its_run_by_name(stop, start, undisturbed, capsys, keys_of):
    words = (*FEDPROTO, "run.resume=auto")
    path = stop("job", *words)
    capsys.readouterr()
    with pytest.raises(ConfigError) as refused:
        start("job", *words, "run.seed=1")
    assert keys_of(refused.value) == ["run.seed"]
    assert start("job", *words) == path
    assert f"{path}: resuming after round 3 of {ROUNDS}\n" in capsys.readouterr().out
    # run.resume is the only difference between the configs.
    assert same_end(path, undisturbed(*FEDPROTO))
    before = untouched(path)
    capsys.readouterr()
    assert start("job", *words) == path
    assert keys_of(capsys.readouterr().out) == [str(path)]
    assert untouched(path) == before
    with pytest.raises(RunExistsError):
        start("job", *FEDPROTO)


def test_a_later_job_of_a_run_whose_folder_is_gone_starts_a_new_run(
    start, folder, monkeypatch, capsys, golden, keys_of
):
    words = (*FEDPROTO, "run.rounds=1", "run.resume=auto")
    monkeypatch.setenv("FEDVTC_RUN_ID", "0a1b2c3d")
    monkeypatch.setenv("FEDVTC_ATTEMPT", "2")
    path = start("gone", *words)
    drawn = json.loads((path / "run.json").read_text())["id"]
    assert drawn != "0a1b2c3d"
    first = capsys.readouterr().out.splitlines()[0]
    assert keys_of(first) == [str(path)]
    golden(first, {str(folder): "OUTPUTS", drawn: "RUN_ID"})

    # The next job finds the new folder.
    monkeypatch.setenv("FEDVTC_ATTEMPT", "3")
    assert start("gone", *words) == path
    assert keys_of(capsys.readouterr().out) == [str(path)]
    assert json.loads((path / "run.json").read_text())["id"] == drawn


def test_a_moved_run_folder_resumes_with_its_saved_partition(stopped, undisturbed, folder, monkeypatch):
    path = Path(shutil.move(stopped("here", *LOCAL), folder / "there"))
    expected = undisturbed(*LOCAL)
    monkeypatch.setattr("fedvtc.learning.population.make_partition", lambda *_: pytest.fail("drawn again"))
    resume_federation(path, plain=True)
    assert same_end(path, expected)
    assert not (folder / "here").exists()
