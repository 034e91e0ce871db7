"""The files under jobs/: each fits its schema if the schema is available, and fedvtc accepts its commands."""

import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from fedvtc.commands.main import main
from fedvtc.commands.submit import read_runtime_env
from fedvtc.commands.submit.package import entrypoint, packed
from fedvtc.config import Config, field_docs
from fedvtc.config.schema import RunConfig
from fedvtc.learning.methods import config_classes

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "jobs").iterdir() if path.name != "README.md")


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def check_words(words, capsys):
    """Loads the config as the command does, and returns it."""
    assert main(["plan", *(word for word in words if word not in ("--plain", "--debug")), "--print-config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def words_after_run(text):
    """The arguments of the only `fedvtc run` in a script or an entrypoint, with continued lines joined."""
    (line,) = re.findall(r"python -m fedvtc run (.*)", text.replace("\\\n", " "))
    return shlex.split(line)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_tested_here_and_listed_in_the_readme(path):
    text = path.read_text(encoding="utf-8")

    assert text.isascii()
    assert path.name in Path(__file__).read_text(encoding="utf-8")
    assert path.name in (ROOT / "jobs/README.md").read_text(encoding="utf-8")
    assert f"jobs/{path.name}" in "".join(line for line in text.splitlines(True) if line.startswith("# "))


@pytest.mark.parametrize("name", ["submit.sh", "slurm.sh"])
def test_a_script_is_valid_bash_and_its_example_works(name, capsys):
    path = ROOT / "jobs" / name
    text = path.read_text(encoding="utf-8")

    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", path], check=True)
    if name == "slurm.sh":
        # The quoted text is another script.
        (inner,) = re.findall(r"bash -c '(.*?)'", text, re.DOTALL)
        subprocess.run(["bash", "-n", "-c", inner], check=True)
    words = [word for word in words_after_run(text) if word != "$@"]
    (example,) = re.findall(rf"^#   (?:sbatch )?jobs/{name} (.*)$", text, re.MULTILINE)
    config = check_words([*shlex.split(example), *words], capsys)
    assert config["run"]["resume"] == "auto"
    assert Path(config["run"]["output_dir"]).is_absolute()
    if name == "slurm.sh":
        assert config["cluster"]["address"] == "auto"


def test_the_variables_of_slurm_are_removed_before_ray_starts():
    text = (ROOT / "jobs/slurm.sh").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ +(unset .*)$", text, re.MULTILINE)
    environment = {"SLURM_PROCID": "2", "SLURM_JOB_ID": "7", "RANK": "1", "NUM_NODES": "2", "PATH": "/usr/bin:/bin"}
    left = subprocess.run(["bash", "-c", f"{line}; env"], env=environment, capture_output=True, text=True, check=True)

    assert "SLURM" not in left.stdout
    assert "RANK" not in left.stdout
    assert "NUM_NODES=2" in left.stdout


@pytest.fixture
def slurm(tmp_path):
    """Starts jobs/slurm.sh with programs that stand for those of Slurm and Ray."""

    def start(**programs):
        for name, does in {"scontrol": "printf 'one\\ntwo\\n'", **programs}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
            (tmp_path / name).chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "TMPDIR": str(tmp_path),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "[one,two]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "8",
        }
        command = ["bash", ROOT / "jobs/slurm.sh", "a b.yaml"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, text=True, **pipes)

    return start


def test_slurm_gives_each_node_its_cpus(slurm):
    """Since Slurm 22.05 `srun` does not inherit the CPUs per task of `sbatch`."""
    said = slurm(srun='printf "%s\\n" "$HEAD_ADDRESS" "$@"').communicate()[0].splitlines()
    assert said[:6] == ["one:6379", "--nodes=2", "--ntasks=2", "--cpus-per-task=8", "bash", "-c"]
    assert said[-2:] == ["fedvtc", "a b.yaml"]


def test_the_warning_of_slurm_reaches_the_run_and_nothing_else(slurm, tmp_path):
    run = "trap 'echo \"$@\" saves; exit 138' USR1; echo runs; while :; do sleep 0.02; done"
    job = slurm(srun='shift 3; exec "$@"', ray='while [ "$1" != -- ]; do shift; done; shift; "$@"', python=run)
    with job:
        assert job.stdout.readline() == "runs\n"
        job.send_signal(signal.SIGUSR1)
        output, errors = job.communicate(timeout=20)

    assert output == "-m fedvtc run a b.yaml conf/cluster/attached.yaml run.resume=auto --plain saves\n"
    assert (job.returncode, errors) == (138, "")
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize(("ray", "code"), [("echo Failed to start Ray >&2", 1), ("exit 5", 5)], ids=["0", "5"])
def test_slurm_reports_a_run_that_did_not_start(slurm, ray, code):
    """`ray symmetric-run` ends with 0 if `ray start` fails."""
    job = slurm(srun='shift 3; exec "$@"', ray=ray)
    errors = job.communicate(timeout=20)[1]

    assert job.returncode == code
    assert ("jobs/slurm.sh: the run did not start" in errors) == (code == 1)


def test_slurm_ends_with_the_code_of_a_run_that_started(slurm):
    ray = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    for code in (0, 2):
        job = slurm(srun='shift 3; exec "$@"', ray=ray, python=f"exit {code}")
        assert (job.communicate(timeout=20)[1], job.returncode) == ("", code)


def test_ray_has_the_options_of_the_scripts():
    from ray.dashboard.modules.job.cli import submit
    from ray.scripts.symmetric_run import symmetric_run

    for name, command in (("submit.sh", submit), ("slurm.sh", symmetric_run)):
        text = (ROOT / "jobs" / name).read_text(encoding="utf-8").replace("\\\n", " ")
        (line,) = re.findall(r"exec ray (?:job submit|symmetric-run) (.*?) -- ", text)
        given = set(re.findall(r"--[a-z-]+", line)) - {"--num-cpus"}  # An option of `ray start`.
        assert given <= {option for parameter in command.params for option in parameter.opts}


def test_ray_accepts_runtime_env_yaml():
    content = read_runtime_env(ROOT / "jobs/runtime_env.yaml")

    assert content["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"


def test_cluster_aws_yaml_fits_the_schema_of_ray():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "jobs/cluster-aws.yaml").read_text(encoding="utf-8"))
    whole = prepare_config(config)
    validate_config(whole)

    # Ray passes a pattern to `rsync --exclude`.
    assert "*.env" in whole["rsync_exclude"]
    assert whole["head_node_type"] in whole["available_node_types"]
    assert sum(kind["max_workers"] for kind in whole["available_node_types"].values()) >= whole["max_workers"] > 0


def test_nodes_on_aws_have_an_image_with_a_new_python_and_a_disk_for_pytorch():
    """Otherwise Ray takes its own image of Ubuntu 18.04."""
    content = yaml.safe_load((ROOT / "jobs/cluster-aws.yaml").read_text(encoding="utf-8"))

    for kind in content["available_node_types"].values():
        node = kind["node_config"]
        assert node["ImageId"] == "AMI_ID"
        (disk,) = node["BlockDeviceMappings"]
        assert disk["DeviceName"] == "/dev/sda1"
        assert disk["Ebs"]["VolumeSize"] >= 32
    assert "AMI_ID" in (ROOT / "jobs/README.md").read_text(encoding="utf-8")


def test_a_run_on_aws_waits_for_nodes_because_the_head_has_no_cpus(capsys):
    text = (ROOT / "jobs/cluster-aws.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    (line,) = re.findall(r"fedvtc submit (.*)", text.replace("\\\n#", " "))

    placement = check_words(shlex.split(line, comments=True), capsys)["placement"]

    assert content["available_node_types"][content["head_node_type"]]["resources"]["CPU"] == 0
    assert (placement["clients_per_actor"], placement["wait_timeout_s"]) == (1, 600)


# Fields of RayJob and RayCluster in ray.io/v1, by the API reference of KubeRay 1.6; its schema is not available here.
RAY_JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "runtimeEnvYAML"}
RAY_JOB |= {"rayClusterSpec", "activeDeadlineSeconds", "metadata", "submissionMode", "jobId", "suspend"}
RAY_CLUSTER = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"}
RAY_CLUSTER |= {"workerGroupSpecs"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "numOfHosts"}


def test_kuberay_rayjob_yaml_has_the_fields_of_kuberay(capsys):
    text = (ROOT / "jobs/kuberay-rayjob.yaml").read_text(encoding="utf-8")
    claim, job = yaml.safe_load_all(text)

    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert (job["apiVersion"], job["kind"], set(job)) == (
        "ray.io/v1",
        "RayJob",
        {"apiVersion", "kind", "metadata", "spec"},
    )
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert set(spec) <= RAY_JOB
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["headGroupSpec"]) <= {"rayStartParams", "template", "serviceType"}
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["rayVersion"] == locked("ray")
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKERS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        assert {volumes[mount["name"]] for mount in container["volumeMounts"]} == {claim["metadata"]["name"]}
        assert container["envFrom"] == [{"secretRef": {"name": "fedvtc-secrets", "optional": True}}]
    config = check_words([word.removeprefix("/fedvtc/") for word in words_after_run(spec["entrypoint"])], capsys)
    mounts = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert config["run"]["output_dir"] in {mount["mountPath"] for mount in mounts}
    assert config["run"]["resume"] == "auto"


def test_ray_accepts_the_runtime_environment_of_the_rayjob(tmp_path):
    _, job = yaml.safe_load_all((ROOT / "jobs/kuberay-rayjob.yaml").read_text(encoding="utf-8"))
    (tmp_path / "env.yaml").write_text(job["spec"]["runtimeEnvYAML"])

    content = read_runtime_env(tmp_path / "env.yaml")

    assert content["env_vars"] == read_runtime_env(ROOT / "jobs/runtime_env.yaml")["env_vars"]


def test_fedvtc_accepts_the_commands_of_wandb_sweep_yaml(capsys):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "jobs/wandb-sweep.yaml").read_text(encoding="utf-8"))
    own = [doc.key for cls in config_classes().values() for doc in field_docs(cls, "method")]

    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] in ("maximize", "minimize")
    assert set(sweep["parameters"]) <= {doc.key for doc in field_docs(Config)} | set(own)
    # The agent of W&B builds a command in this way.
    drawn = {key: {"value": parameter["values"][0]} for key, parameter in sweep["parameters"].items()}
    words = create_sweep_command_args({"args": drawn})["args_no_hyphens"]
    command = create_sweep_command(sweep["command"])
    assert command[:3] == ["${env}", sweep["program"], "run"]
    assert command[-1] == "${args_no_hyphens}"
    config = check_words([*command[3:-1], *words], capsys)
    for key, value in drawn.items():
        section, name = key.rsplit(".", 1)
        node = config
        for step in section.split("."):
            node = node[step]
        assert node[name] == value["value"]


def test_fedvtc_accepts_the_entrypoint_of_a_submitted_job(monkeypatch, capsys):
    config = Config(run=RunConfig(name="mine", rounds=3))

    with packed([config], None) as folder:
        monkeypatch.chdir(folder)
        assert check_words(words_after_run(entrypoint(config)), capsys)["run"]["rounds"] == 3
        monkeypatch.chdir(ROOT)


def locked(package):
    """The version of a package in requirements.lock."""
    return re.search(rf"^{package}(?:\[.*\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]
