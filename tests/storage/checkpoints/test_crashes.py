import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedvtc.storage.checkpoints import CheckpointStore

SOURCE = str(Path(__file__).parents[3] / "src")

# Runs one scenario in a new folder and a new process for n = 1, 2, ...; the process exits before its n-th change of the
# disk. The loop ends with the first process that completes.
CRASHES = """
import os, shutil, sys
from operator import methodcaller
from pathlib import Path
from fedvtc.storage.checkpoints import CheckpointStore, Manifest

def save(store, round, content):
    draft = store.draft(f"round_{round:06d}", 1)
    shards = tuple(store.write(draft, name, methodcaller("write", content)) for name in ("server.pt", "client_0000.pt"))
    store.publish(draft, Manifest(content.decode(), round, "round", "f00d", None, shards, {}, "now"))

SCENARIOS = {
    "new": lambda store: save(store, 2, b"new"),
    "replaced": lambda store: save(store, 1, b"new"),
    "pruned": lambda store: store.prune(store.manifests(print)[:1], keep_best=False),
    "cleared": lambda store: store.clear_drafts(),
}

root, scenario = Path(sys.argv[1]), sys.argv[2]
left = -1
fsync = os.fsync

def change(*event):
    global left
    left -= 1
    if left == 0:
        os._exit(9)

def hook(event, args):
    if left > 0 and event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"):
        change()

def fsync_or_crash(descriptor):
    change()
    fsync(descriptor)

sys.addaudithook(hook)
os.fsync = fsync_or_crash
crash = 0
while True:
    crash += 1
    store = CheckpointStore(root / str(crash) / "checkpoints")
    save(store, 1, b"old")
    if scenario in ("pruned", "cleared"):
        save(store, 3, b"old")
    if scenario == "cleared":
        place = root / str(crash) / "checkpoints/round_000001"
        place.rename(f"{place}.replaced.tmp")
        store.write(store.draft("round_000001", 1), "server.pt", methodcaller("write", b"unfinished"))
    process = os.fork()
    if process == 0:
        left = crash
        SCENARIOS[scenario](store)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code == 0:
        break
    assert code == 9, code
"""


@pytest.mark.parametrize(
    ("scenario", "num_changes", "possible", "at_last"),
    [
        ("new", 10, [{1: "old"}, {1: "old", 2: "new"}], {1: "old", 2: "new"}),
        # Between two renames there is neither of the two.
        ("replaced", 16, [{1: "old"}, {}, {1: "new"}], {1: "new"}),
        ("pruned", 5, [{1: "old", 3: "old"}, {3: "old"}], {3: "old"}),
        ("cleared", 4, [{3: "old"}, {1: "old", 3: "old"}], {1: "old", 3: "old"}),
    ],
)
def test_a_crash_at_any_step_leaves_only_whole_checkpoints(tmp_path, scenario, num_changes, possible, at_last):
    subprocess.run(
        [sys.executable, "-c", CRASHES, tmp_path, scenario],
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )

    outcomes = []
    for folder in sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name)):
        store = CheckpointStore(folder / "checkpoints")
        outcomes.append(whole_rounds(store))
        store.clear_drafts()
        # The old checkpoint or the new one is found again.
        assert whole_rounds(store) in [outcome for outcome in possible if outcome]
        assert not [path for path in (folder / "checkpoints").iterdir() if path.suffix == ".tmp"]

    assert len(outcomes) > num_changes
    assert all(outcome in possible for outcome in outcomes)
    assert all(outcome in outcomes for outcome in possible)
    assert outcomes[-1] == at_last


def whole_rounds(store):
    manifests = store.manifests(pytest.fail)
    assert [store.problems(manifest) for manifest in manifests] == [[]] * len(manifests)
    assert all(store.read(manifest, "server.pt") == manifest.run_id.encode() for manifest in manifests)
    return {manifest.round: manifest.run_id for manifest in manifests}
