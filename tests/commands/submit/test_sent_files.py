"""The files that leave this machine: those of a job, of the shipped files under jobs/, and of an image."""

import shlex
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private.runtime_env.packaging import create_package

from fedvtc.commands.submit.package import ALWAYS_SENT, entrypoint, packed, read_runtime_env, sent_folders, unsent_files
from fedvtc.config import Config, load
from fedvtc.config.schema import RunConfig
from fedvtc.learning.methods import config_classes

ROOT = Path(__file__).parents[3]
CONFIG_FILE = "fedvtc-configs/mine.yaml"
CONFIG = Config(run=RunConfig(name="mine", output_dir="/mnt/outputs"))
SECRET = {"secrets.env", ".env", "conf/mine.env"}
IGNORED = {"outputs/mine/run.json", "data/mnist.npz", "src/fedvtc.egg-info/PKG-INFO"}
NEEDED = {"pyproject.toml", "README.md", "LICENSE", "conf/base.yaml", "src/fedvtc/__main__.py", "jobs/submit.sh"}


@pytest.fixture
def sent(tmp_path):
    """Packs a folder as Ray does; returns the package."""

    def pack(folder, **options):
        # Ray keeps a package that exists.
        (tmp_path / "sent.zip").unlink(missing_ok=True)
        create_package(str(folder), tmp_path / "sent.zip", **options)
        return ZipFile(tmp_path / "sent.zip")

    return pack


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Makes files in a folder, which becomes the working folder."""

    def make(*files):
        for file in files:
            (tmp_path / "code" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "code" / file).touch()
        monkeypatch.chdir(tmp_path / "code")
        return tmp_path / "code"

    return make


def test_modules_of_the_runtime_environment_are_sent_too(tmp_path):
    given = {"working_dir": "code", "py_modules": [str(tmp_path / "package"), "s3://bucket/other.zip"]}
    assert sent_folders(given, None) == [Path("code"), tmp_path]
    assert sent_folders(given, Path("other")) == [Path("other"), tmp_path]
    assert sent_folders(None, None) == []


def test_the_sent_folder_holds_the_config_and_the_working_dir(code, sent):
    folder = code("package/module.py", "results.bin")
    (folder / "package/module.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("*.bin\n")

    with packed([CONFIG], Path()) as made:
        assert load([made / CONFIG_FILE], [], methods=config_classes()).run == CONFIG.run
        assert CONFIG_FILE in entrypoint(CONFIG).split()
        with sent(made, include_gitignore=True) as package:
            assert sorted(package.namelist()) == [".gitignore", CONFIG_FILE, "package/module.py"]
            assert package.read("package/module.py") == b"x = 1\n"
    assert not made.exists()
    assert (folder / "package/module.py").exists()


@pytest.mark.parametrize("name", ["token.txt", "keys/my [2nd] token!"])
def test_the_token_of_a_cluster_is_not_sent(code, sent, tmp_path, monkeypatch, name):
    files = {"token.txt", "inner/token.txt", "keys/my [2nd] token!", "keys/my 2 token!"}
    code(*files, "data.bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", name)

    patterns = unsent_files({"excludes": ["*.bin"]}, Path())
    with packed([CONFIG], Path()) as folder, sent(folder, include_gitignore=True, excludes=patterns) as package:
        assert set(package.namelist()) == {CONFIG_FILE, *files} - {name}
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert unsent_files({}, Path()) == unsent_files({}, None) == ["*.env", *ALWAYS_SENT]


def test_files_with_secrets_are_not_sent_unless_excludes_name_them(code, sent):
    code("secrets.env", "inner/.env", "inner/mine.env", "environment.py")

    for excludes, names in (([], {"environment.py"}), (["!mine.env"], {"environment.py", "inner/mine.env"})):
        patterns = unsent_files({"excludes": excludes}, Path())
        with packed([CONFIG], Path()) as folder, sent(folder, include_gitignore=True, excludes=patterns) as package:
            assert set(package.namelist()) == {CONFIG_FILE, *names}


@pytest.mark.parametrize("pattern", ["*.yaml", "fedvtc-configs"])
def test_configs_are_sent_although_the_patterns_of_a_user_fit_their_names(code, sent, pattern):
    folder = code("mine.yaml")
    for name in (".gitignore", ".rayignore"):
        (folder / name).write_text(pattern)

    patterns = unsent_files({"excludes": [pattern]}, Path())
    with packed([CONFIG], Path()) as made, sent(made, include_gitignore=True, excludes=patterns) as package:
        assert CONFIG_FILE in package.namelist()
    assert (folder / ".gitignore").read_text() == pattern


def test_any_name_of_a_run_gives_a_command(code):
    for name in ("my run; rm -rf $HOME", "x" * 255, "\u00e9" * 127, "a\nb", "'"):
        config = replace(CONFIG, run=replace(CONFIG.run, name=name))
        with packed([config], None) as made:
            *_, file, _ = shlex.split(entrypoint(config))
            assert load([made / file], [], methods=config_classes()).run.name == name


def test_the_shipped_files_keep_secrets_out_of_a_job(code, sent):
    folder = code(*SECRET, *IGNORED, *NEEDED)
    (folder / ".gitignore").write_text((ROOT / ".gitignore").read_text())

    with sent(folder, include_gitignore=True) as package:
        assert set(package.namelist()) == {".gitignore", *NEEDED}
    # Ray does not read .gitignore if RAY_RUNTIME_ENV_IGNORE_GITIGNORE is set.
    excludes = read_runtime_env(ROOT / "jobs/runtime_env.yaml")["excludes"]
    with sent(folder, include_gitignore=False, excludes=excludes) as package:
        assert set(package.namelist()) == {".gitignore", *NEEDED, *IGNORED}


def test_an_image_gets_no_secrets_and_no_files_that_git_ignores():
    from ray._private.thirdparty.pathspec import PathSpec

    # In Docker a pattern begins at the top of the folder, as a pattern of git with a slash before it.
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    unsent = PathSpec.from_lines("gitwildmatch", [f"/{line}" for line in lines])

    of_git = {line.strip("/").replace("*", "mine") for line in (ROOT / ".gitignore").read_text().splitlines()}
    for path in (*SECRET, *IGNORED, *of_git, ".git/config", "src/fedvtc/__pycache__/main.pyc"):
        assert unsent.match_file(path), path
    assert not [path for path in NEEDED if unsent.match_file(path)]
