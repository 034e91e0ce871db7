"""The doctor: real run folders that are damaged for real, and an environment that lacks what a run needs."""

import fcntl
import io
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fedvtc.commands import doctor
from fedvtc.commands.doctor import findings_table, installation, machine
from fedvtc.commands.doctor.finding import Finding, safely
from fedvtc.commands.doctor.run_folder import examine_run
from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.federation.launch import run_federation
from fedvtc.learning.methods import config_classes

ROOT = Path(__file__).parents[3]
KEY = "sk-0123456789abcdef"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
SMALL = """placement.pool=inline run.name=mine run.rounds=3 evaluate.every=1 population.num_clients=2 method.name=local
partition.alpha=100 partition.images_per_client=20 population.feature_size=4 checkpoint.keep=3"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    overrides = [*SMALL.split(), "population.backbones=[{name: cnn_2x8, share: 1}]"]
    overrides.append(f"run.output_dir={tmp_path_factory.mktemp('doctor')}")
    return run_federation(load([], overrides, methods=config_classes()), plain=True).folder


@pytest.fixture
def run(finished, tmp_path):
    """A run folder of three rounds, each with a checkpoint, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "mine"))


@pytest.fixture
def stopped(run):
    """The same before its end: it has done three rounds, and nothing after them."""
    edit_json(run / "run.json", status="interrupted")
    shutil.rmtree(run / "checkpoints/final")
    return run


def edit_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def told(findings):
    """State and text of each row that is not well."""
    return [(row.what, row.state, row.found) for row in findings if row.state != "ok"]


def row_of(findings, what):
    (row,) = [row for row in findings if row.what == what]
    return row


def files_of(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_whole_run_is_well_and_stays_as_it_is(run):
    before = files_of(run)

    rows = list(examine_run(run))

    assert told(rows) == []
    assert files_of(run) == before
    assert [row.what for row in rows] == [
        *("run.json", "config.yaml", "metrics.jsonl", "clients.csv", "partition.npz", "checkpoints/final"),
        *(f"checkpoints/round_00000{round}" for round in (3, 2, 1)),
    ]
    assert row_of(rows, "metrics.jsonl").found == "3 rounds, and the final record"
    assert row_of(rows, "clients.csv").found == "8 rows"
    assert row_of(rows, "partition.npz").found == "2 clients, 40 images"
    assert row_of(rows, "checkpoints/round_000002").found.startswith("whole: 3 files, ")


def test_a_stopped_run_goes_on_after_its_newest_checkpoint(stopped):
    rows = list(examine_run(stopped))

    ((what, state, found),) = told(rows)
    assert (what, state) == ("run.json", "warning")
    assert found.endswith("1 attempt: interrupted")
    assert row_of(rows, "run.json").fix == f"fedvtc resume {stopped}"
    assert row_of(rows, "resuming").found == "goes on after round 3 of 3"
    assert row_of(rows, "disk").state == "ok"


@pytest.mark.parametrize("content", [b'{"id": "0a", "na', b"", b'{"id": "0a"}', b"\xff\xfe"])
def test_without_a_run_json_nothing_more_is_said(run, content):
    (run / "run.json").write_bytes(content)

    (row,) = examine_run(run)

    assert (row.what, row.is_good) == ("run.json", False)
    assert "damaged" in row.found
    assert row.fix == "Repair the file, or start a new run under another run.name."


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_that_holds_no_run_is_one_fault(tmp_path, name):
    (tmp_path / "empty").mkdir()

    (row,) = examine_run(tmp_path / name)

    assert not row.is_good
    assert row.found in ("no such folder", "not a run folder, it has no run.json")
    assert row.fix.startswith("Name the folder of a run")


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(stopped):
    edit_json(stopped / "run.json", status="running")
    (stopped / ".lock").write_text("pid 7 on somewhere\n")
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "pha')

    killed = list(examine_run(stopped))
    with (stopped / ".lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        going_on = list(examine_run(stopped))

    assert row_of(killed, "run.json").found.endswith("running, but no process writes it: it was killed")
    assert row_of(killed, "metrics.jsonl").found == "its last line is torn"
    # What is written just now is no fault, and nobody should resume it.
    assert told(going_on) == []
    assert row_of(going_on, "run.json").found.endswith("pid 7 on somewhere writes it now")
    assert "resuming" not in {row.what for row in going_on}


def test_a_lock_that_cannot_be_examined_is_a_fault_beside_the_other_rows(run, monkeypatch):
    whole = list(examine_run(run))
    # Nobody can open a socket, root neither; its path has to be short.
    monkeypatch.chdir(run)
    (run / ".lock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(".lock")
        rows = list(examine_run(run))

    assert told(rows) == [(".lock", "fault", "cannot be examined (No such device or address)")]
    assert rows[2:] == whole[1:]
    assert row_of(rows, "run.json").found.endswith("perhaps a process writes it now")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize("name", [".lock", ""])
def test_a_lock_or_a_folder_that_may_not_be_read_is_a_fault(run, monkeypatch, name):
    monkeypatch.setattr(doctor, "CHECKS", {})
    (run / name).chmod(0o000)
    code = main(["doctor", str(run)])
    faults = [row for row in examine_run(run) if not row.is_good]
    (run / name).chmod(0o700)

    assert code == 2
    assert [row.what for row in faults] == [name or "run.json"]
    assert "(Permission denied)" in faults[0].found


def test_a_file_of_a_run_that_cannot_be_checked_is_a_fault_beside_the_other_rows(run, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {})
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()

    ((what, state, found),) = told(examine_run(run))

    assert (what, state) == ("metrics.jsonl", "fault")
    assert found.startswith("could not be checked (IsADirectoryError: ")
    assert main(["doctor", str(run)]) == 2


def test_every_problem_of_the_config_is_a_row(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("rounds: 3", "rounds: 0").replace("epochs: 1", "epoch: 1"))

    faults = told(examine_run(run))

    assert [(what, state) for what, state, _ in faults] == [("config.yaml", "fault")] * 2
    assert "run.rounds" in faults[1][2]
    assert "training.epoch" in faults[0][2]


def test_a_config_that_reads_the_environment_is_a_fault(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("label: null", "label: ${oc.env:HOME}"))

    assert told(examine_run(run)) == [("config.yaml", "fault", "holds ${...}, which no run writes")]


def test_a_partition_with_any_bit_flipped_is_never_a_crash(run):
    file = run / "partition.npz"
    whole = file.read_bytes()
    shutil.rmtree(run / "checkpoints")
    states = []
    for position in range(0, len(whole), len(whole) // 40):
        flip(file, position)
        row = row_of(examine_run(run), "partition.npz")
        assert "could not be checked" not in row.found
        states.append(row.state)
        file.write_bytes(whole)

    # The bits that do not matter are dates and the like.
    assert states.count("fault") > 30


def test_a_partition_that_is_cut_absent_or_of_other_clients_is_said(run):
    file = run / "partition.npz"
    file.write_bytes(file.read_bytes()[:100])
    cut = row_of(examine_run(run), "partition.npz")
    file.unlink()
    absent = row_of(examine_run(run), "partition.npz")

    assert (cut.state, cut.found[:20]) == ("fault", "not a partition file")
    assert (absent.state, absent.found) == ("warning", "is missing")


@pytest.mark.parametrize(
    ("change", "state", "found"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "warning", "its last line is torn"),
        (lambda lines: lines[:1] + lines[2:], "fault", "no record of round 2"),
        (lambda lines: lines[:2] + lines[1:], "fault", "more than one record of round 2"),
        (lambda lines: ["{}\n", *lines], "fault", "no record in line 1"),
        (lambda lines: [lines[0], "\0\0\0\n", *lines[2:]], "fault", "no record in line 2"),
        (
            lambda lines: [*lines, '{"round": 1000000000, "phase": "round"}\n'],
            "fault",
            "no record of round 4, 5, 6, 7, 8 and 999999991 more",
        ),
        (lambda lines: lines[:-1], "fault", "0 final records where one is expected"),
        (lambda lines: lines[:2] + lines[3:], "fault", "no record of round 3"),
    ],
)
def test_records_that_are_torn_lost_or_doubled_are_counted(run, change, state, found):
    file = run / "metrics.jsonl"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

    assert ("metrics.jsonl", state, found) in told(examine_run(run))


def test_records_of_a_finished_run_that_are_gone_are_a_fault(run):
    (run / "metrics.jsonl").unlink()
    (run / "clients.csv").unlink()

    assert told(examine_run(run)) == [("metrics.jsonl", "fault", "is missing"), ("clients.csv", "fault", "is missing")]


@pytest.mark.parametrize(
    ("change", "state", "found"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "warning", "its last line is torn"),
        (lambda lines: [*lines[:2], "2,round\n", *lines[2:]], "fault", "line 3 has not as many cells as the first"),
        (lambda lines: [*lines, lines[3]], "fault", "more than one row of client 0 in round 2"),
        (lambda lines: lines[1:], "fault", "its first line does not name the columns"),
    ],
)
def test_rows_of_clients_that_are_torn_or_doubled_are_counted(run, change, state, found):
    file = run / "clients.csv"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

    assert told(examine_run(run)) == [("clients.csv", state, found)]


@pytest.mark.parametrize("shard", ["server.pt", "client_0000.pt", "client_0001.pt"])
def test_every_byte_of_a_checkpoint_counts(stopped, shard):
    flip(stopped / f"checkpoints/round_000003/{shard}", -1)

    rows = list(examine_run(stopped))

    damaged = row_of(rows, "checkpoints/round_000003")
    assert (damaged.state, damaged.found) == ("fault", f"{shard} does not match its hash")
    assert damaged.fix == "It is passed over; an older one that is whole is used."
    assert row_of(rows, "resuming").found == "goes on after round 2 of 3"


def test_what_is_wrong_with_a_checkpoint_is_named(stopped):
    checkpoints = stopped / "checkpoints"
    shard = checkpoints / "round_000003/client_0001.pt"
    num_bytes = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:10])
    (checkpoints / "round_000002/server.pt").unlink()
    (checkpoints / "round_000001/manifest.json").write_text('{"run_id"')

    rows = list(examine_run(stopped))

    assert told(rows)[1:] == [
        ("checkpoints/round_000001/manifest.json", "fault", "is not JSON; it is damaged"),
        ("checkpoints/round_000003", "fault", f"client_0001.pt has 10 of {num_bytes} bytes"),
        ("checkpoints/round_000002", "fault", "server.pt is missing"),
        ("resuming", "fault", "refused, for no checkpoint is whole"),
    ]
    assert row_of(rows, "resuming").fix == f"Mend one of them, or remove {checkpoints} and metrics.jsonl to start over."


def test_a_run_without_checkpoints_starts_over(stopped):
    shutil.rmtree(stopped / "checkpoints")

    row = row_of(examine_run(stopped), "resuming")

    assert (row.state, row.found) == ("fault", "holds no checkpoint of the run, though its records reach round 3")
    (stopped / "metrics.jsonl").unlink()
    row = row_of(examine_run(stopped), "resuming")
    assert (row.state, row.found) == ("warning", "there is no checkpoint, all 3 rounds are done again")


def test_a_finished_run_without_its_final_checkpoint_is_told(run):
    shutil.rmtree(run / "checkpoints/final")

    assert told(examine_run(run)) == [("checkpoints/final", "warning", "there is none that is whole")]


def test_a_checkpoint_of_another_run_or_config_is_a_fault(run):
    manifest = run / "checkpoints/round_000003/manifest.json"
    edit_json(manifest, run_id="deadbeef")
    edit_json(manifest.parents[1] / "round_000002/manifest.json", fingerprint="00")
    third = manifest.parents[1] / "round_000001/manifest.json"
    shards = [shard for shard in json.loads(third.read_text())["shards"] if shard["name"] != "client_0001.pt"]
    edit_json(third, shards=shards)

    found = {what: text for what, _, text in told(examine_run(run))}

    run_id = json.loads((run / "run.json").read_text())["id"]
    assert found == {
        "checkpoints/round_000003": f"is that of run deadbeef, not of {run_id}",
        "checkpoints/round_000002": "config.yaml is not the config that it was written with",
        "checkpoints/round_000001": "its manifest is not one of this run, it lacks client_0001.pt",
    }


def test_a_changed_config_belongs_to_none_of_the_checkpoints(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 0.01"))

    faults = told(examine_run(run))

    assert [what for what, _, _ in faults] == ["checkpoints/final", *(f"checkpoints/round_00000{k}" for k in (3, 2, 1))]
    assert {text for _, _, text in faults} == {"config.yaml is not the config that it was written with"}


def test_a_disk_too_small_for_the_next_checkpoint_is_a_warning(stopped):
    manifest = stopped / "checkpoints/round_000003/manifest.json"
    shards = json.loads(manifest.read_text())["shards"]
    edit_json(manifest, shards=[{**shards[0], "num_bytes": 10**18}, *shards[1:]])

    row = row_of(examine_run(stopped), "disk")

    assert row.state == "warning"
    assert row.found.endswith("the next ones need 2000.0 PB")


def test_a_secret_in_a_file_is_named_and_never_shown(run, monkeypatch, capsys):
    monkeypatch.setenv("OTHER_API_KEY", "not-in-any-file")
    monkeypatch.setenv("HUB_READ_TOKEN", KEY)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("label: null", f"label: {KEY}"))

    row = next(row for row in examine_run(run) if row.what == "config.yaml")

    assert (row.state, row.found) == ("fault", "holds the value of $HUB_READ_TOKEN")
    assert KEY not in str(list(examine_run(run)))


def make_package(folder, name, source):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)


def make_installed(folder, name, version, *lines):
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    text = [f"Name: {name}", f"Version: {version}", "Metadata-Version: 2.1", *lines]
    (about / "METADATA").write_text("\n".join(text) + "\n")


def test_packages_that_are_missing_old_or_compromised_are_faults(tmp_path, monkeypatch):
    needed = ["lightning>=2.6.4,<3", "torch>=2.9,<3", "no-such-package>=1", "rich", 'colour>=1; extra == "dev"']
    make_installed(tmp_path, "fedvtc", "0.1.0", "Requires-Python: >=99", *(f"Requires-Dist: {text}" for text in needed))
    make_installed(tmp_path, "lightning", "2.6.3")
    make_installed(tmp_path, "torch", "2.1.0")
    monkeypatch.syspath_prepend(str(tmp_path))

    rows = list(installation.packages())

    assert [(row.what, row.state) for row in rows] == [
        *((name, "fault") for name in ("Python", "lightning", "torch", "no-such-package")),
        ("packages", "ok"),
    ]
    assert row_of(rows, "lightning").found == "2.6.3 was compromised and steals keys"
    assert row_of(rows, "torch").found == "2.1.0, needed is <3,>=2.9"
    assert row_of(rows, "no-such-package").fix == "uv pip install 'no-such-package>=1'"
    assert row_of(rows, "packages").found.startswith("rich ")


def test_the_packages_of_this_environment_are_as_they_are_needed():
    assert told(installation.packages()) == []


BROKEN_PAIR = "raise RuntimeError('operator torchvision::nms does not exist')"
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("torch", "torchvision", "found"),
    [
        ("", BROKEN_PAIR, "RuntimeError: operator torchvision::nms does not exist"),
        ("", CRASH, "loading them ended the process with code -9"),
        ("import no_such_library", "", "ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_a_torch_and_torchvision_that_do_not_fit_are_a_fault(tmp_path, monkeypatch, torch, torchvision, found):
    make_package(tmp_path, "torch", torch)
    make_package(tmp_path, "torchvision", torchvision)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    (row,) = installation.torch_and_devices()

    assert (row.state, row.found) == ("fault", found)
    assert row.fix.endswith("uv pip install --reinstall torch torchvision")


MACHINE_WITH_GPUS = """
class cuda:
    device_count = staticmethod(lambda: 2)
    get_device_name = staticmethod(lambda index: f"H{index}")
class version:
    cuda = "13.2"
class Tensor:
    add = lambda self, other: self
    item = lambda self: 2.0
def ones(count, device):
    if device == "cuda:1":
        raise RuntimeError("no kernel image is available\\nmore")
    return Tensor()
zeros = lambda *shape: None
__version__ = "2.15.0"
"""


def test_each_gpu_is_tried(tmp_path, monkeypatch):
    make_package(tmp_path, "torch", MACHINE_WITH_GPUS)
    make_package(tmp_path, "torchvision", "__version__ = '1'\nclass ops:\n    nms = staticmethod(lambda *boxes: None)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    rows = [(row.what, row.state, row.found) for row in installation.torch_and_devices()]

    assert rows == [
        ("torch and torchvision", "ok", "torch 2.15.0, torchvision 1 load together"),
        ("GPU", "fault", "cuda:1: no kernel image is available"),
        ("GPU", "ok", "H0"),
    ]


def test_memory_and_shared_memory_below_what_is_needed_are_warnings(monkeypatch):
    monkeypatch.setattr(machine, "MIN_MEMORY_BYTES", 1e18)
    monkeypatch.setattr(machine, "STORE_SHARE", 1e6)
    monkeypatch.setattr(machine, "SMALL_STORE_BYTES", 2.0**50)

    rows = list(machine.memory())

    assert [(row.what, row.state) for row in rows] == [("memory", "warning"), ("/dev/shm", "warning")]
    assert rows[1].fix == f"Free it; in a container: docker run --shm-size={1.1 * 2**20:.1f}g"


def test_ray_needs_a_short_folder_with_room(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    (fine,) = machine.ray()
    monkeypatch.setattr(machine, "FULL_SHARE", -1.0)
    (full,) = machine.ray()
    # 39 bytes fit, 40 do not.
    monkeypatch.setattr(machine, "FULL_SHARE", 1.0)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/".ljust(39, "x"))
    (fits,) = machine.ray()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/".ljust(40, "x"))
    (long,) = machine.ray()
    (tmp_path / "ray").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (blocked,) = machine.ray()

    assert [row.state for row in (fine, full, fits, long, blocked)] == ["ok", "warning", "ok", "fault", "fault"]
    assert "too long for the sockets" in long.found
    assert "no folder that can be written to" in blocked.found


def test_a_cluster_that_does_not_answer_is_a_fault(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")

    (row,) = machine.ray()

    assert row.state == "fault"
    assert row.found.startswith(f"RAY_ADDRESS=127.0.0.1:{port}: no Ray cluster answers ([Errno 111]")
    assert row.fix == "Start one with `ray start --head`, or unset it."


def test_a_cluster_is_visited_without_loading_torch_here():
    program = "import sys; from fedvtc.commands.doctor import machine; "
    program += "print(list(machine.ray())[0].state, 'torch' in sys.modules)"
    environment = {**ENVIRONMENT, "RAY_ADDRESS": "127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "fault False\n", done.stderr


def test_run_folders_need_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (fine,) = machine.outputs()
    monkeypatch.setattr(machine, "MIN_DISK_BYTES", 1e18)
    (full,) = machine.outputs()
    Path("outputs").touch()
    (blocked,) = machine.outputs()

    assert [row.state for row in (fine, full, blocked)] == ["ok", "warning", "fault"]
    assert fine.found.endswith(f"free in {tmp_path}")


def test_a_low_limit_of_open_files_is_a_warning():
    words = "from fedvtc.commands.doctor.machine import open_files; print([row.state for row in open_files()])"

    def limited(soft, hard):
        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        made = subprocess.run(
            [sys.executable, "-c", words], env=ENVIRONMENT, preexec_fn=lower, capture_output=True, text=True, check=True
        )
        return made.stdout.strip()

    assert limited(1000, 1000) == "['warning']"
    # Ray raises the soft limit itself.
    assert limited(1000, 8000) == "['ok']"


def test_fewer_cpus_than_the_machine_has_are_a_warning():
    words = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    words += "from fedvtc.commands.doctor.machine import cpus; print([row.fix for row in cpus()])"

    made = subprocess.run([sys.executable, "-c", words], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert made.stdout.strip() == ("['']" if os.cpu_count() == 1 else "['Set cluster.num_cpus=1.']")


def test_what_a_launcher_set_is_listed_by_name(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "4711")

    (row,) = machine.launcher()

    assert row.found == "RANK, SLURM_JOB_ID, SLURM_NTASKS and 1 more: the processes of clients do without them"


def test_the_root_of_the_data_is_checked_where_it_is_set(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDVTC_DATA", raising=False)
    assert list(machine.data_root()) == []
    for root, state in ((tmp_path, "ok"), (tmp_path / "absent", "warning")):
        monkeypatch.setenv("FEDVTC_DATA", str(root))
        assert [row.state for row in machine.data_root()] == [state]


def test_a_key_of_wandb_is_found_and_never_shown(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    rows = [*machine.wandb()]
    for content in (f"machine api.wandb.ai login user password {KEY}\n", f"nonsense {KEY}\n"):
        file.write_text(content)
        rows += machine.wandb()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    rows += machine.wandb()
    monkeypatch.setenv("WANDB_MODE", "offline")
    rows += machine.wandb()

    assert [(row.state, row.found) for row in rows] == [
        ("ok", "no key; `wandb login` keeps one"),
        ("ok", f"key found in {file}"),
        ("warning", f"{file} cannot be read as a netrc file"),
        ("ok", "key found in the environment"),
        ("ok", "WANDB_MODE=offline"),
    ]
    assert KEY not in str(rows)


def test_a_check_that_breaks_is_a_row_after_what_it_had_found():
    first = Finding("disk", "ok", "7 GB")

    def check():
        yield first
        raise OSError("no such device\nat all")

    broken = Finding("disk", "warning", "could not be checked (OSError: no such device)")
    assert safely("disk", check) == [first, broken]


def test_the_table_says_each_state_in_a_word_and_counts_them():
    def printed(*rows):
        console = Console(file=io.StringIO(), width=100)
        console.print(findings_table(rows))
        return console.file.getvalue().splitlines()

    fine = Finding("a", "ok", "1")
    lines = printed(fine, Finding("[red]b", "fault", "[bold]2", "mend it"), Finding("c", "warning", "3"))

    assert [line.split() for line in lines[1:]] == [
        ["a", "ok", "1"],
        ["[red]b", "fault", "[bold]2", "mend", "it"],
        ["c", "warning", "3"],
        ["1", "fault,", "1", "warning"],
    ]
    assert printed(fine)[-1].strip() == "All is well."


def test_the_command_is_done_where_nothing_is_amiss():
    # The address of a cluster, or a launcher's long folder, is not what this is about.
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in ("RAY_ADDRESS", "TMPDIR")}
    command = [sys.executable, "-m", "fedvtc", "doctor"]

    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stderr == ""
    lines = [line for line in made.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split("  ")[0] for line in lines[:5]] == [
        "check",
        "Python",
        "packages",
        "torch and torchvision",
        "GPU",
    ]


def test_the_command_ends_as_a_mistake_of_the_user_where_there_is_a_fault(run, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", {"CPUs": machine.cpus})
    whole = main(["doctor", str(run)]), capsys.readouterr().out
    flip(run / "checkpoints/round_000003/client_0000.pt", 0)
    damaged = main(["doctor", str(run)]), capsys.readouterr().out

    assert (whole[0], damaged[0]) == (0, 2)
    assert [line.split()[0] for line in whole[1].splitlines()[:3]] == ["check", "CPUs", "run.json"]
    assert "client_0000.pt does not match its hash" in damaged[1]
    assert damaged[1].splitlines()[-1].startswith("1 fault")
