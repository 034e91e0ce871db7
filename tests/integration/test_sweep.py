"""Sweeps with Ray Tune on a cluster of two CPUs: interrupted, resumed, and with trials that fail or stop early."""

import json
import os
import re
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.results import write_results
from fedvtc.config.operation import PlacementConfig
from fedvtc.federation.launch import run_federation

# Four starts of a cluster, on a busy machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ROUNDS = 60
TINY = {
    "data": {"name": "npz", "path": "tiny.npz"},
    "population": {"num_clients": 2, "backbones": [{"name": "cnn_2x8", "share": 1}], "feature_size": 4},
    "partition": {"kind": "iid"},
    "training": {"batch_size": 8},
    "evaluate": {"every": 1, "samples_every": 1000},
    "run": {"rounds": ROUNDS},
}
SHARING = "ccvr-rounds20-pool-inline-base-local"
NUM_ROUNDS = {"local-rounds20-pool-inline": 20, "fedproto-rounds60-pool-ray": 60, SHARING: 20}
"""Rounds by trial. The first two run at once, and the shorter one ends while the longer one still runs. The third
starts from the rounds of the first."""
METHODS = {
    "set": TINY,
    "list": [
        {"method.name": "local", "run.rounds": 20, "placement.pool": "inline"},
        {"method.name": "fedproto", "run.rounds": 60, "placement.pool": "ray"},
        {"method.name": "ccvr", "run.rounds": 20, "placement.pool": "inline", "method.base": "local"},
    ],
}
NUM_SAVED = 3
"""Records of a trial whose first checkpoint is complete: the second starts before and waits for the first."""
PATIENCE_S = 400
AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Processes of Ray that need about a minute to notice that the driver was killed."""


@pytest.fixture
def in_a_folder(tiny_folder, monkeypatch):
    """The current folder, new, with the tiny data set."""
    folder = tiny_folder("sweep")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def write(definition):
    Path("mine.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))


OWN = "cluster.num_cpus=2"
"""Makes a sweep start a cluster of two CPUs."""


@pytest.fixture(scope="module")
def shared():
    """Makes a sweep attach to a cluster of two CPUs that outlives it."""
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves log files open when it starts processes.
        patch.setenv("PYTHONPATH", str(ROOT / "src"))  # Workers import the same code as this process.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield f"cluster.address={cluster.address}"
        cluster.shutdown()


@pytest.fixture
def start(zygote):
    """Starts `fedvtc sweep mine.yaml` on a cluster."""
    return lambda cluster: zygote.start("sweep", "mine.yaml", cluster, start_new_session=True)


def num_records(trial):
    file = Path("outputs/mine", trial, "metrics.jsonl")
    return file.read_text().count("\n") if file.exists() else 0


def described(trial):
    return json.loads(Path("outputs/mine", trial, "run.json").read_text())


def statuses():
    """The status in run.json of each trial that has started."""
    return {
        file.parent.name: json.loads(file.read_text())["status"] for file in Path("outputs/mine").glob("*/run.json")
    }


def half_way():
    """Running trials with a complete checkpoint and without the last round."""
    return [
        trial
        for trial, status in statuses().items()
        if status == "running" and NUM_SAVED <= num_records(trial) < NUM_ROUNDS.get(trial, ROUNDS)
    ]


def interrupt(process, signum, is_time, processes_below, still_running):
    """Sends a signal when `is_time` returns True; returns the output after all processes have ended."""
    until_s = time.monotonic() + PATIENCE_S
    while not is_time():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.05)
    family = {pid: name for pid, name in processes_below(process.pid).items() if name not in AGENTS}
    os.kill(process.pid, signum)
    printed = process.communicate(timeout=PATIENCE_S)
    assert not still_running(family, patience_s=60)
    return printed


def test_a_sweep_that_is_interrupted_twice_has_the_numbers_of_an_undisturbed_sweep(
    in_a_folder, start, shared, processes_below, still_running, golden
):
    write(METHODS)

    first = start(OWN)
    try:
        printed, errors = interrupt(first, signal.SIGTERM, half_way, processes_below, still_running)
    finally:
        first.kill()
    assert (first.returncode, len(errors.splitlines())) == (143, 1)
    assert printed.endswith(f": fedvtc sweep mine.yaml {OWN}\n")
    golden(printed.splitlines()[-1])
    half_done = {trial for trial in statuses() if num_records(trial) >= NUM_SAVED}
    assert {statuses()[trial] for trial in half_done} == {"interrupted"}

    second = start(OWN)
    try:
        interrupt(
            second,
            signal.SIGKILL,
            lambda: "finished" in statuses().values() and half_way(),
            processes_below,
            still_running,
        )
    finally:
        second.kill()
    # Two starts have written into one folder of Tune: the second restored the state of the first.
    (tune_folder,) = Path("outputs/mine/tune").iterdir()
    assert len(list(tune_folder.glob("experiment_state-*.json"))) == 2
    half_done |= set(half_way())
    done = {trial: described(trial) for trial, status in statuses().items() if status == "finished"}
    assert list(done) == ["local-rounds20-pool-inline"]

    last = start(shared)
    try:
        printed, errors = last.communicate(timeout=PATIENCE_S)
    finally:
        last.kill()
    assert (last.returncode, errors) == (0, "")
    assert printed.splitlines()[0] == f"mine: 3 trials, 1 done, in {in_a_folder / 'outputs/mine'}"
    assert statuses() == dict.fromkeys(NUM_ROUNDS, "finished")
    assert {trial: described(trial) for trial in done} == done
    for trial in half_done:
        assert described(trial)["attempts"][-1]["resumed_round"] >= 1, trial
    for trial, rounds in NUM_ROUNDS.items():
        lines = Path("outputs/mine", trial, "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["round"] for line in lines] == [*range(1, rounds + 1), rounds]

    assert described(SHARING)["attempts"][0]["started_from"]["name"] == "local-rounds20-pool-inline"

    undisturbed = load_sweep(Path("mine.yaml"), ["run.output_dir=undisturbed"])
    for trial in undisturbed.trials:
        run_federation(replace(trial.config, placement=PlacementConfig(pool="inline")), plain=True)
    write_results(SweepFolder(undisturbed))
    for name in ("results.csv", "results.md"):
        assert Path("outputs/mine", name).read_bytes() == Path("undisturbed/mine", name).read_bytes()


def test_a_lost_trial_resumes_a_bad_trial_is_stopped_and_a_failed_trial_is_named(in_a_folder, start, shared):
    lists = [
        {"run.seed": 0, "training.optimizer.lr": 0.02},
        {"run.seed": 1, "training.optimizer.lr": 0.02},
        {"run.seed": 2, "training.optimizer.lr": 1e-9},
        {"run.seed": 3, "training.optimizer": {"name": "sgd", "lr": 1e30}},
    ]
    tiny = {**TINY, "method": {"name": "local"}, "placement": {"pool": "inline"}}
    # One trial at a time, because the order decides which trials are stopped.
    write({"set": tiny, "list": lists, "max_concurrent": 1, "asha": {"grace_rounds": 30}})
    folder = SweepFolder(load_sweep(Path("mine.yaml")))
    lost, good, bad, explosive = folder.sweep.trials

    process = start(shared)
    try:
        until_s = time.monotonic() + PATIENCE_S
        while not half_way():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until_s
            time.sleep(0.05)
        os.kill(described(lost.name)["attempts"][0]["pid"], signal.SIGKILL)
        printed, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()

    assert (process.returncode, errors) == (1, ""), printed
    # No trial is stopped after its last round.
    assert folder.stopped_early() == {bad.name: 30}
    states = [folder.state(trial) for trial in (lost, good, bad, explosive)]
    assert states == ["finished", "finished", "stopped early", "failed"]
    assert folder.pending() == [explosive]
    # One process ran these trials, one after the other, the last after a trial that was stopped early.
    assert len({described(trial.name)["attempts"][0]["pid"] for trial in (good, bad, explosive)}) == 1
    lines = printed.splitlines()
    mine = [line.partition(",")[0] for line in lines if line.startswith(f"{lost.name}: ")]
    assert mine == [f"{lost.name}: {what}" for what in ("starts", "lost", "resumes", "finished")]
    assert described(lost.name)["attempts"][1]["resumed_round"] >= 1
    assert printed.index(f"{explosive.name}: failed") < printed.index(f"{lost.name}: resumes")
    log = folder.log(explosive)
    # A line of Tune itself.
    assert "Last result" not in printed
    name, place = re.escape(explosive.name), re.escape(str(log))
    failed = rf"{name}: failed: client 0, round 1, .*nan.* \(see {place}\)"
    assert any(re.fullmatch(failed, line) for line in lines)
    # A trial with an error of its own is not restarted.
    assert lines.count(f"{explosive.name}: failed") == 1
    assert any(re.match("fedvtc: client 0, round 1, .*nan", line) for line in log.read_text().splitlines())
    assert replace(good.config.run, seed=0) == replace(bad.config.run, seed=0, name=good.name)


def test_a_folder_of_tune_that_cannot_be_written_is_one_line(in_a_folder, start, shared, keys_of):
    write({"set": {**TINY, "placement": {"pool": "inline"}}, "grid": {"run.seed": [0]}})
    Path("outputs/mine").mkdir(parents=True)
    Path("outputs/mine/tune").write_text("a file")

    process = start(shared)
    try:
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()

    (key,) = keys_of(errors)
    assert (process.returncode, Path(key).parent) == (2, in_a_folder / "outputs/mine/tune"), errors


def test_a_sweep_without_resources_says_so_and_ends_after_its_timeout_or_a_signal(
    in_a_folder, start, shared, keys_of, golden
):
    tiny = {**TINY, "placement": {"pool": "inline", "cpus_per_actor": 3.0, "wait_timeout_s": 7.0}}
    write({"set": tiny, "grid": {"run.seed": [0, 1]}})

    process = start(shared)
    try:
        printed, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()

    assert (process.returncode, keys_of(errors)) == (2, ["placement"]), errors
    waiting = printed.splitlines()[1]
    golden(waiting)
    golden(errors)

    (tune_folder,) = Path("outputs/mine/tune").iterdir()
    torn = [tune_folder / "tuner.pkl", *tune_folder.glob("experiment_state-*.json")]
    assert len(torn) == 2
    for file in torn:
        file.write_bytes(b"torn")
    process = start(shared)
    try:
        lines = [next(process.stdout) for _ in range(3)]
        process.terminate()
        printed, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()

    assert lines[1].startswith(f"{tune_folder.absolute()}: ")
    golden(lines[1], {str(tune_folder.absolute()): "TUNE"})
    assert lines[2] == f"{waiting}\n"
    assert printed.endswith(f": fedvtc sweep mine.yaml {shared}\n")
    assert (process.returncode, len(printed.splitlines()), len(errors.splitlines())) == (143, 1, 1)
