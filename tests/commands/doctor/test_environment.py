"""Checks of this machine: packages that are missing or broken, a machine that lacks what a run needs."""

import io
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fedvtc.commands.doctor import examine as examination
from fedvtc.commands.doctor import installation, machine
from fedvtc.commands.doctor.examine import examine
from fedvtc.commands.doctor.finding import Finding, findings_table, safely

ROOT = Path(__file__).parents[3]
KEY = "sk-0123456789abcdef"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def states(rows):
    return [(row.what, row.state) for row in rows]


def lines(rows):
    """The rows as text, one per line."""
    return "\n".join(f"{row.what} | {row.state} | {row.found} | {row.fix or '-'}" for row in rows)


def printed(rows):
    console = Console(file=io.StringIO(), width=160)
    console.print(findings_table(rows))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def python(program, environment=ENVIRONMENT, **options):
    """Output of a program in a separate process."""
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, **options
    )
    return made.stdout.strip()


def make_package(folder, name, source):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)


def make_installed(folder, name, version, *lines):
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    text = [f"Name: {name}", f"Version: {version}", "Metadata-Version: 2.1", *lines]
    (about / "METADATA").write_text("\n".join(text) + "\n")


def test_a_missing_an_old_and_a_compromised_package_are_faults(tmp_path, monkeypatch, golden):
    needed = ["lightning>=2.6.4,<3", "torch>=2.9,<3", "no-such-package>=1", "rich", 'colour>=1; extra == "dev"']
    make_installed(tmp_path, "fedvtc", "0.1.0", "Requires-Python: >=99", *(f"Requires-Dist: {text}" for text in needed))
    make_installed(tmp_path, "lightning", "2.6.3")
    make_installed(tmp_path, "torch", "2.1.0")
    make_installed(tmp_path, "rich", "15.0.0")
    monkeypatch.syspath_prepend(str(tmp_path))

    (version,) = installation.python()
    *faults, good = installation.packages()

    assert (version.what, version.state) == ("Python", "fault")
    assert states(faults) == [(name, "fault") for name in ("lightning", "torch", "no-such-package")]
    assert (good.what, good.state, good.found) == ("packages", "ok", "rich 15.0.0")
    assert "uv pip install 'no-such-package>=1'" in faults[2].fix
    golden(lines([version, *faults]), {".".join(map(str, sys.version_info[:3])): "VERSION"})


def test_this_environment_has_every_package_that_fedvtc_needs():
    assert states([*installation.python(), *installation.packages()]) == [("Python", "ok"), ("packages", "ok")]


BROKEN_PAIR = "raise RuntimeError('operator torchvision::nms does not exist')"
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("torch", "torchvision", "found"),
    [
        ("", BROKEN_PAIR, "RuntimeError: operator torchvision::nms does not exist"),
        ("", CRASH, "-9"),
        ("import no_such_library", "", "ModuleNotFoundError: No module named 'no_such_library'"),
    ],
    ids=["pair", "crash", "library"],
)
def test_torch_and_torchvision_that_do_not_load_are_a_fault(tmp_path, monkeypatch, golden, torch, torchvision, found):
    make_package(tmp_path, "torch", torch)
    make_package(tmp_path, "torchvision", torchvision)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    (row,) = installation.torch_and_devices()

    assert row.state == "fault"
    assert found in row.found
    golden(lines([row]))


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


def test_each_gpu_computes_once(tmp_path, monkeypatch, golden):
    make_package(tmp_path, "torch", MACHINE_WITH_GPUS)
    make_package(tmp_path, "torchvision", "__version__ = '1'\nclass ops:\n    nms = staticmethod(lambda *boxes: None)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    rows = list(installation.torch_and_devices())

    assert states(rows) == [("torch and torchvision", "ok"), ("GPU", "fault"), ("GPU", "ok")]
    assert rows[2].found == "H0"
    golden(lines(rows))


def test_too_little_memory_and_shared_memory_are_warnings(monkeypatch):
    monkeypatch.setattr(machine, "MIN_MEMORY_BYTES", 1e18)
    monkeypatch.setattr(machine, "STORE_SHARE", 1e6)
    monkeypatch.setattr(machine, "SMALL_STORE_BYTES", 2.0**50)

    rows = list(machine.memory())

    assert states(rows) == [("memory", "warning"), ("/dev/shm", "warning")]
    assert rows[1].fix.endswith(f"docker run --shm-size={1.1 * 2**20:.1f}g")


def test_a_local_cluster_needs_a_short_folder_with_free_space(tmp_path, monkeypatch, golden):
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
    golden(lines([fine, long, blocked]))


def test_a_cluster_that_does_not_answer_is_a_fault(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")

    (row,) = machine.ray()

    assert row.state == "fault"
    assert row.found.startswith(f"RAY_ADDRESS=127.0.0.1:{port}: ")
    assert "[Errno 111]" in row.found
    assert row.fix


def test_the_check_of_a_cluster_does_not_import_torch():
    program = "import sys; from fedvtc.commands.doctor import machine; "
    program += "print(list(machine.ray())[0].state, 'torch' in sys.modules)"

    assert python(program, {**ENVIRONMENT, "RAY_ADDRESS": "127.0.0.1:9"}) == "fault False"


def test_run_folders_need_a_writable_folder_with_free_space(tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    (fine,) = machine.outputs()
    monkeypatch.setattr(machine, "MIN_DISK_BYTES", 1e18)
    (full,) = machine.outputs()
    Path("outputs").touch()
    (blocked,) = machine.outputs()

    assert [row.state for row in (fine, full, blocked)] == ["ok", "warning", "fault"]
    assert fine.found.endswith(f"free in {tmp_path}")
    golden(lines([blocked]))


def test_a_low_limit_of_open_files_is_a_warning(golden):
    program = "from fedvtc.commands.doctor.machine import open_files as check; "
    program += "print(*(f'{row.state} | {row.found} | {row.fix}' for row in check()))"

    def limited(soft, hard):
        return python(program, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))

    low = limited(1000, 1000)
    assert low.startswith("warning | ")
    golden(low)
    # Ray raises the soft limit itself.
    assert limited(1000, 8000).startswith("ok | ")


def test_a_limit_of_the_address_space_is_named(monkeypatch, golden):
    def found(limit):
        monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
        return list(machine.address_space())

    assert found(resource.RLIM_INFINITY) == found(10**12) == []
    low, middle = found(2 * 10**9), found(8 * 10**9)
    assert states([*low, *middle]) == [("address space", "fault"), ("address space", "warning")]
    golden(lines([*low, *middle]))


@pytest.mark.skipif(os.cpu_count() == 1, reason="one CPU cannot be divided")
def test_a_local_cluster_takes_the_cpus_that_the_process_may_use():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from fedvtc.runtime.actors.cluster import count_cpus\n"
    program += "from fedvtc.commands.doctor.machine import cpus; print(count_cpus(), [row.found for row in cpus()])"

    assert python(program) == f"1 ['this process may use 1 of {os.cpu_count()} CPUs']"


def test_variables_of_a_launcher_are_named(monkeypatch, golden):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "4711")

    (row,) = machine.launcher()

    assert row.state == "ok"
    assert "RANK, SLURM_JOB_ID, SLURM_NTASKS and 1 more" in row.found
    golden(row.found)


def test_the_folder_of_data_sets_must_exist(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDVTC_DATA", raising=False)
    assert list(machine.data_root()) == []
    for root, state in ((tmp_path, "ok"), (tmp_path / "absent", "warning")):
        monkeypatch.setenv("FEDVTC_DATA", str(root))
        assert [row.state for row in machine.data_root()] == [state]


def test_a_key_of_wandb_is_found_and_never_shown(tmp_path, monkeypatch, golden):
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

    assert [row.state for row in rows] == ["ok", "ok", "warning", "ok", "ok"]
    assert str(file) in rows[1].found
    assert str(file) in rows[2].found
    assert KEY not in str(rows)
    golden(lines(rows))


def test_a_check_that_raises_keeps_its_findings_and_adds_one():
    first = Finding("disk", "ok", "7 GB")

    def check():
        yield first
        raise OSError("no such device\nat all")

    kept, broken = safely("disk", check)
    assert kept == first
    assert (broken.what, broken.state) == ("disk", "warning")
    assert "OSError: no such device" in broken.found
    assert "at all" not in broken.found


def test_good_facts_share_one_row_and_others_have_their_own(monkeypatch):
    def broken():
        raise OSError("gone")

    def mixed():
        yield Finding("memory", "ok", "8 GB of memory free")
        yield Finding("/dev/shm", "warning", "full", "Free it.")

    facts = {"CPUs": lambda: [Finding("CPUs", "ok", "2 CPUs")], "memory": mixed, "open files": broken}
    monkeypatch.setattr(examination, "FACTS", facts)
    monkeypatch.setattr(examination, "CHECKS", {"outputs": lambda: [Finding("outputs", "ok", "9 GB free")]})

    rows = examine(None)

    assert states(rows) == [
        ("environment", "ok"),
        ("/dev/shm", "warning"),
        ("open files", "warning"),
        ("outputs", "ok"),
    ]
    assert rows[0].found == "2 CPUs, 8 GB of memory free"


def test_no_environment_row_without_a_good_fact(monkeypatch):
    monkeypatch.setattr(examination, "FACTS", {"CPUs": lambda: [Finding("CPUs", "warning", "1 of 2")]})
    monkeypatch.setattr(examination, "CHECKS", {})

    assert states(examine(None)) == [("CPUs", "warning")]


def test_the_table_names_each_state_and_counts_faults_and_warnings(golden):
    fine = Finding("a", "ok", "1")
    mixed = printed([fine, Finding("[red]b", "fault", "[bold]2", "repair it"), Finding("c", "warning", "3")])

    assert [line.split() for line in mixed.splitlines()[1:]] == [
        ["a", "ok", "1"],
        ["[red]b", "fault", "[bold]2", "repair", "it"],
        ["c", "warning", "3"],
        ["1", "fault,", "1", "warning"],
    ]
    golden(mixed)
    golden(printed([fine]))


def test_the_command_ends_with_0_on_a_good_machine():
    # Without the address of a cluster, and without a launcher's long folder for sockets.
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in ("RAY_ADDRESS", "TMPDIR")}
    command = [sys.executable, "-m", "fedvtc", "doctor"]

    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stderr == ""
    rows = [line.split("  ")[0] for line in made.stdout.splitlines() if not line.startswith(" ")]
    assert [row for row in rows if row not in {*examination.FACTS, "/dev/shm"}][:7] == [
        "check",
        "environment",
        "packages",
        "torch and torchvision",
        "GPU",
        "Ray",
        "outputs",
    ]


def test_the_command_runs_with_a_package_missing():
    program = """
import sys
sys.modules.update(omegaconf=None, numpy=None, torch=None, lightning=None, ray=None)
from fedvtc.commands.doctor import examine
del examine.CHECKS["torch and torchvision"]
from fedvtc.commands.main import main
main(["doctor"])
"""
    assert "environment" in python(program)
