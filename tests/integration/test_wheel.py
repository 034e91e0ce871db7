"""The built wheel in an environment of its own, outside of the source tree."""

import configparser
import os
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with the wheel; all other packages are those of this environment."""
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    venv.EnvBuilder(symlinks=True).create(folder / "venv")
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # A path in a .pth file adds no .pth file in turn, so the editable install of this environment stays out.
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    scripts = configparser.ConfigParser()
    scripts.read(next(packages.glob("fedvtc-*.dist-info")) / "entry_points.txt")
    module, function = scripts["console_scripts"]["fedvtc"].split(":")
    found = folder / "venv/bin/python"
    script = folder / "venv/bin/fedvtc"
    script.write_text(f"#!{found}\nfrom {module} import {function}\n{function}()\n")
    script.chmod(0o755)
    return found


@pytest.fixture
def run(python, tmp_path):
    """A function that runs a script of the shell in an empty folder, with the environment's programs."""

    def run(script):
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "FEDVTC_DATA")}
        environment = clean | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_commands_of_the_readme_and_of_help_texts_work_from_the_wheel(run, python):
    """Runs the tests of the documents on the wheel."""
    tests = f"{ROOT}/tests/docs/test_commands.py::test_every_command_of_a"
    options = f"--rootdir {ROOT} -c {ROOT}/pyproject.toml -o pythonpath= -p no:cacheprovider -q"
    printed = run(
        f"python -c 'import fedvtc; print(fedvtc.__file__)'\n"
        f"python -m pytest {options} '{tests}_document_is_accepted[README.md]' {tests}_help_text_is_accepted"
    )
    assert printed.splitlines()[0].startswith(str(python.parents[1]))
    assert "2 passed" in printed


def test_a_new_project_runs_from_the_wheel(run):
    printed = run(
        "fedvtc init mine; cd mine\n"
        "fedvtc run experiment.yaml run.rounds=1 population.num_clients=2 cluster.num_cpus=1 run.name=mine --plain\n"
        "fedvtc plan experiment.yaml method/local cluster/inline --print-config\n"
        "fedvtc list\n"
        "fedvtc sweep sweep.yaml --print\n"
        "python -m pytest -q -p no:cacheprovider"
    )
    assert "Shared head" in printed
    assert "\n  pool: inline" in printed
    assert "4 passed" in printed
