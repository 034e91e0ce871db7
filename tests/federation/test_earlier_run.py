"""A run that starts from the rounds of another run: results equal to a run of its own rounds, and refusals."""

import errno
import json
import shutil

import pytest
import torch

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.config.changes import check_equal_rounds
from fedvtc.errors import CheckpointError, ClusterError, ConfigError, RunFolderError
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.methods import config_classes
from fedvtc.learning.metrics import MEASURED
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.checkpoints.trees import read_tree
from fedvtc.storage.run_folder import RunFolder

SETTINGS = (
    "placement.pool=inline",
    "run.rounds=2",
    "data.name=npz",
    "partition.alpha=1",
    "population.num_clients=3",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
    "population.feature_size=6",
    "evaluate.every=1",
    "evaluate.samples_per_class=1",
)
LOCAL = ("method.name=local",)
FEDCVAE = ("method.name=fedcvae", "method.decoder.epochs=1", "method.decoder.width=4", "method.num_images=12")
GAUSSIAN = ("method.name=ccvr", "method.base=local", "method.head=lda")
FEDVTC = ("method.name=fedvtc", "evaluate.samples_every=1", "method.generator.epochs=1", "method.generator.width=4")
TUNED = (*FEDVTC, "method.finetune.epochs=1", "method.finetune.images_per_class=4")


@pytest.fixture(scope="module")
def words_of(tiny_folder):
    folder = tiny_folder("earlier")

    def make(name, *overrides):
        return [*SETTINGS, f"run.output_dir={folder}", f"data.path={folder}/tiny.npz", f"run.name={name}", *overrides]

    return make


@pytest.fixture(scope="module")
def start(words_of):
    """Runs a federation; returns its run folder."""

    def make(name, *overrides, **options):
        config = load([], words_of(name, *overrides), methods=config_classes())
        return run_federation(config, plain=True, **options).folder

    return make


@pytest.fixture(scope="module")
def local(start):
    return start("local", *LOCAL)


def results_of(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith(MEASURED)} for line in lines]


def models_of(path):
    store = CheckpointStore(path / "checkpoints")
    final = next(manifest for manifest in store.manifests(pytest.fail) if manifest.phase == "final")
    return {shard.name: read_tree(store.read(final, shard.name)) for shard in final.shards if shard.name != "server.pt"}


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def same_end(path, expected):
    assert results_of(path) == results_of(expected)
    for name in ("clients.csv", "confusion.npz", "partition.npz"):
        assert (path / name).read_bytes() == (expected / name).read_bytes()
    pictures = [{file.name: file.read_bytes() for file in (run / "samples").glob("*")} for run in (path, expected)]
    assert pictures[0] == pictures[1]
    assert equal(models_of(path), models_of(expected))
    return True


def test_methods_without_messages_in_rounds_share_the_rounds_of_local(start, local, capsys):
    before = {file: file.read_bytes() for file in local.rglob("*") if file.is_file() and file.name != ".lock"}
    path = start("fedcvae", *FEDCVAE, start_from=local)
    assert f"{path}: starting after round 2 of {local}\n" in capsys.readouterr().out
    assert same_end(path, start("fedcvae-alone", *FEDCVAE))
    assert all(file.read_bytes() == content for file, content in before.items())
    # Without the modules that the method does not have.
    assert same_end(start("gaussian", *GAUSSIAN, start_from=path), start("gaussian-alone", *GAUSSIAN))


def test_another_fine_tuning_shares_the_rounds_and_can_be_resumed(start, tmp_path, capsys):
    first = start("tuned-once", *TUNED)
    twice = (*TUNED, "method.finetune.epochs=2", "method.finetune.augment=affine")
    path = start("tuned-twice", *twice, start_from=first)
    alone = start("tuned-alone", *twice)
    assert same_end(path, alone)
    folder = RunFolder.open(path)
    (attempt,) = folder.attempts
    assert attempt["started_from"] == {"id": RunFolder.open(first).id, "name": "tuned-once", "round": 2}
    assert folder.id != RunFolder.open(first).id
    # The copied checkpoint belongs to the new run.
    shutil.rmtree(first)
    resume_federation(path, ["run.rounds=3"], plain=True)
    assert results_of(path)[:2] == results_of(alone)[:2]
    assert [record["round"] for record in results_of(path)] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ((*FEDCVAE, "training.epochs=2", "run.seed=1"), ["run.seed", "training.epochs"]),
        (("method.name=fedproto",), ["method.name"]),
        (FEDVTC, ["method.name"]),
    ],
    ids=["training", "fedproto", "fedvtc"],
)
def test_other_rounds_are_refused_by_their_keys(words_of, local, change, keys, keys_of, golden):
    before, after = (load([], words_of("x", *method), methods=config_classes()) for method in (LOCAL, change))
    with pytest.raises(ConfigError) as refused:
        check_equal_rounds(before, after, "outputs/local")
    assert keys_of(refused.value) == keys
    golden(refused.value)


def test_fine_tuning_in_the_rounds_belongs_to_the_rounds(words_of, keys_of):
    every = (*TUNED, "method.finetune.when=every_round")
    for change, key in (
        ("method.finetune.epochs=3", "method.finetune.epochs"),
        ("method.finetune.when=end", "method.finetune.when"),
    ):
        before, after = (
            load([], words_of("x", *every, more), methods=config_classes()) for more in ("run.seed=0", change)
        )
        with pytest.raises(ConfigError) as refused:
            check_equal_rounds(before, after, "outputs/x")
        assert key in keys_of(refused.value)


def test_own_code_that_has_changed_since_is_named(start, tmp_path, monkeypatch, capsys):
    module = tmp_path / "earlier_own.py"
    module.write_text("from fedvtc.learning.methods.local import Local\n\n\nclass Mine(Local):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ("method.name=earlier_own:Mine", "run.rounds=1", "evaluate.every=2")
    first = start("own", *own)
    assert "has changed" not in capsys.readouterr().out
    module.write_text(module.read_text() + "\n# finish\n")
    path = start("own-again", *own, start_from=first)
    line = f"{path}: the code of earlier_own:Mine has changed since {first}; the copied rounds used the former code\n"
    assert line in capsys.readouterr().out


def test_a_run_that_cannot_be_taken_over_leaves_no_new_folder(start, local, tmp_path, words_of, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(local, bare)
    shutil.rmtree(bare / "checkpoints")
    (bare / "metrics.jsonl").unlink()
    description = json.loads((bare / "run.json").read_text())
    del description["has_checkpoints"]
    (bare / "run.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="no checkpoint of a round"):
        start("from-bare", *FEDCVAE, start_from=bare)
    path = start("alone-after-all", *GAUSSIAN, start_from=bare, needs_start=False)
    assert "no checkpoint of a round. Leave --start-from out. This run computes its rounds itself." in (
        " ".join(capsys.readouterr().out.split())
    )
    assert [record["round"] for record in results_of(path)] == [1, 2, 2]
    with pytest.raises(ConfigError, match=r"run\.rounds"):
        start("from-longer", *FEDCVAE, "run.rounds=1", start_from=local)
    (bare / "run.json").write_text(json.dumps(description | {"status": "running"}))
    with RunFolder.open(bare).lock(), pytest.raises(RunFolderError, match="has not ended"):
        start("from-running", *FEDCVAE, start_from=bare)
    assert main(["run", *words_of("from-nothing", *FEDCVAE), "--start-from", str(tmp_path / "absent")]) == 2
    assert str(tmp_path / "absent") in capsys.readouterr().err
    assert not list(local.parent.glob("from-*"))


@pytest.mark.parametrize("shard", ["server", "client_0002"], ids=["first file", "last file"])
def test_a_full_disk_while_rounds_are_copied_leaves_nothing(start, local, tmp_path, monkeypatch, shard):
    words = (f"from-full-{shard}", *GAUSSIAN, f"checkpoint.dir={tmp_path}")
    write = CheckpointStore.write

    def full(self, draft, name, save):
        if name != f"{shard}.pt":
            return write(self, draft, name, save)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "write", full)
        with pytest.raises(RunFolderError):
            start(*words, start_from=local)
    assert not (local.parent / words[0]).exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    # The command can be repeated.
    assert RunFolder.open(start(*words, start_from=local)).status == "finished"


def test_a_checkpoint_damaged_while_it_is_copied_makes_the_run_compute_its_rounds(start, local, monkeypatch, capsys):
    def damaged(self, manifest, name):
        raise CheckpointError(f"checkpoints/{manifest.folder}: {name} does not match its hash")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "read", damaged)
        path = start("from-damaged", *GAUSSIAN, start_from=local, needs_start=False)
    assert "does not match its hash. This run computes its rounds itself." in " ".join(capsys.readouterr().out.split())
    assert RunFolder.open(path).status == "finished"
    assert "started_from" not in RunFolder.open(path).attempts[0]


def test_a_cluster_that_does_not_answer_leaves_no_copied_rounds(start, local, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    elsewhere = (f"checkpoint.dir={tmp_path}", "placement.pool=ray", "cluster.address=127.0.0.1:1")
    with pytest.raises(ClusterError):
        start("from-no-cluster", *GAUSSIAN, *elsewhere, start_from=local)
    assert "resume with" not in capsys.readouterr().out
    assert not (local.parent / "from-no-cluster").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
