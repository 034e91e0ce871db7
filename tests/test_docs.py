"""The documents say what the code does: links, commands, keys, defaults, modules and examples."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedvtc.commands.main import main
from fedvtc.config import Config, check_resumable, field_docs, load
from fedvtc.federation.launch import run_federation
from fedvtc.learning import methods
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.methods import Method, config_classes
from fedvtc.learning.methods.fedvtc import FedVTCConfig

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/fedvtc"
DOCUMENTS = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "jobs/**/*.md", "benchmarks/**/*.md", "conf/**/*.md")
    for file in ROOT.glob(pattern)
)
TINY = ["conf/cluster/inline.yaml", "run.rounds=2", "population.num_clients=2", "partition.alpha=100"]
TINY += ["population.backbones=[{name: cnn_2x8, share: 1}]", "population.feature_size=8"]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path, language):
    """The fenced blocks of a document that are marked as of this language; '' for those that are not marked."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for mark, text in found if mark == language]


def commands(path):
    """Every line of a block that starts with `fedvtc`, or with what sets its environment."""
    lines = [
        line for mark in ("", "sh", "bash", "console") for text in blocks(path, mark) for line in text.splitlines()
    ]
    found = [re.fullmatch(r"\s*(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?(fedvtc \S.*)", line) for line in lines]
    return [match[1] for match in found if match]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        assert not Path(file).is_absolute(), target
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_document_is_ascii_and_names_no_place_of_its_own(path):
    text = path.read_bytes()

    assert text.isascii()
    for address in (b"index-url", b"file://", b"localhost", b"/home/"):
        assert address not in text, address


def test_the_locked_dependencies_name_no_registry():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    assert "://" not in text
    assert "index" not in text


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=name_of)
def test_every_command_is_one_that_the_program_takes(path, tmp_path, monkeypatch, capsys):
    """In the order of the document, so that a file that one command writes can be read by the next."""
    for name in ("conf", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    if path.name == "adding-a-method.md":
        monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    for command in commands(path):
        words = shlex.split(command, comments=True)[1:]
        target = words.pop() if len(words) > 1 and words[-2] == ">" else None
        words = [word for word in words if word not in (">", "--plain", "--debug")]
        if words[0] in ("submit", "sweep"):
            for option in ("--address", "--runtime-env", "--working-dir"):
                words = [
                    word for number, word in enumerate(words) if option not in words[max(0, number - 1) : number + 1]
                ]
        if words[0] == "submit":
            words = ["run", *(word for word in words[1:] if word != "--no-wait")]
        if "--cluster" in words:
            # There is none here; the words are read all the same.
            words += ["--help"]
        if words[0] in ("run", "plan"):
            # Reads the config as a run would, and stops there.
            words = ["plan", *words[1:], "--print-config"]
        elif words[0] == "sweep":
            words = [*(word for word in words if word != "--results"), "--print"]
        elif words[0] == "resume":
            # The run is not there; what it may be resumed with is checked all the same.
            check_resumable(load([], [], methods=config_classes()), load([], words[2:], methods=config_classes()))
            continue
        else:
            for folder in ["outputs", *words[2:]]:
                Path(folder).mkdir(parents=True, exist_ok=True)

        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        assert code == 0, (command, capsys.readouterr().err)

        printed = capsys.readouterr().out
        if target:
            Path(target).write_text(printed, encoding="utf-8")


def test_the_readme_has_the_commands_that_a_reader_starts_with():
    found = commands(ROOT / "README.md")
    targets = re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert {command.split()[1] for command in found} == {
        "run",
        "resume",
        "submit",
        "sweep",
        "plan",
        "list",
        "doctor",
    }
    for path in DOCUMENTS:
        # In code only: prose has `make` as a verb.
        code = re.findall(r"^(?: {4})?make (\w[\w -]*?)(?: *#.*)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(" ".join(code).split()) <= set(targets), name_of(path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_key_and_every_file_that_is_named_exists(path):
    text = path.read_text(encoding="utf-8")
    own = [doc for cls in config_classes().values() for doc in field_docs(cls, "method")]
    keys = {doc.key for doc in [*field_docs(Config), *own]}
    sections = {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}
    code = re.findall(r"`([^`\n]+)`", text)

    top = "|".join(sorted({section for section in sections if "." not in section}))
    files = re.compile(r"\.(py|json|yaml|npz|png|jsonl|csv|load|log)\b")
    for named in re.findall(rf"(?<![\w./-])((?:{top})(?:\.[a-z_]+)+)(?![\w/])", " ".join(code)):
        assert named in keys | sections or files.search(named), named
    if path.name != "adding-a-method.md":
        for named in re.findall(r"(?<![\w./])((?:conf|src|tests|docs|jobs)/[\w./-]*\w\.\w+)", " ".join(code)):
            assert (ROOT / named).exists(), named


def table_rows(path, start):
    """The cells of the table rows whose first cell is a code span that begins so."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{start}")]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]


def test_the_switches_of_the_method_stand_with_the_defaults_of_the_code():
    common = {"method.name", "method.label"}
    rows = table_rows(ROOT / "docs/method.md", "method.")
    docs = [doc for doc in field_docs(FedVTCConfig, "method") if doc.key not in common]

    assert [(key, default) for key, default, *_ in rows] == [(doc.key, doc.default) for doc in docs]
    for (key, _, readings, _), doc in zip(rows, docs, strict=True):
        if " | " in doc.type:
            for choice in doc.type.split(" | "):
                assert f"`{choice}`" in f"`{readings}`", key


def test_no_table_has_a_column_of_the_paper():
    for path in DOCUMENTS:
        for heading in re.findall(r"^(\|.*\|)\n\|[-| :]+\|$", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert "paper" not in heading.lower(), name_of(path)


def test_the_architecture_has_a_row_for_every_room():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert set(re.findall(r"^\| \d \| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)) == rooms | {"errors"}
    for module in re.findall(r"`([\w/]+\.py)`", text):
        assert (PACKAGE / module).exists() or (ROOT / module).exists(), module


@pytest.fixture
def the_example(tmp_path, monkeypatch):
    """The method of docs/adding-a-method.md, put beside the others; gives its YAML and its test."""
    document = ROOT / "docs/adding-a-method.md"
    code, test = blocks(document, "python")
    (config,) = blocks(document, "yaml")
    for name, text in (("shared_head.py", code), ("shared_head.yaml", config), ("test_shared_head.txt", test)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fedvtc.learning.methods.shared_head", raising=False)
    monkeypatch.chdir(ROOT)
    return tmp_path / "shared_head.yaml", test


def test_the_example_of_a_method_runs(the_example, tmp_path):
    file, _ = the_example
    config = load([*TINY[:1], file], [*TINY[1:], f"run.output_dir={tmp_path}"], methods=config_classes())

    summary = run_federation(config, plain=True)

    head_bytes = 10 * (8 + 1) * 4
    records = [json.loads(line) for line in (summary.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record.get("bytes/up/head") for record in records] == [2 * head_bytes, 2 * head_bytes, None]
    assert records[1]["bytes/down/head"] == 2 * head_bytes
    assert records[2]["test/accuracy/mean"] > 0


def test_the_test_of_the_example_passes(the_example):
    _, test = the_example
    namespace = {}
    exec(compile(test, "docs/adding-a-method.md", "exec"), namespace)

    tests = [function for name, function in namespace.items() if name.startswith("test_")]
    assert len(tests) == 2
    for function in tests:
        function()


def test_the_run_folder_is_as_it_is_described(tmp_path, monkeypatch):
    document = ROOT / "docs/run-folder.md"
    monkeypatch.chdir(ROOT)
    fast = ["method.generator.epochs=1", "method.finetune.epochs=1", "method.finetune.images_per_class=4"]
    overrides = [*TINY[1:], *fast, f"run.output_dir={tmp_path}"]

    folder = run_federation(load(TINY[:1], overrides, methods=config_classes()), plain=True).folder

    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {re.sub(r"client_\d+", "client_0000", re.sub(r"\d{6}", "000010", name)) for name in written} == {
        cells[0] for cells in table_rows(document, "") if len(cells) == 3
    }
    keys = {name.strip("` ") for cells in table_rows(document, "") if len(cells) == 2 for name in cells[0].split(",")}
    run = json.loads((folder / "run.json").read_text())
    assert set(run) <= keys
    assert set(yaml.safe_load((folder / "config.yaml").read_text())) == {
        doc.key.split(".")[0] for doc in field_docs(Config)
    }
    assert set((folder / "clients.csv").read_text().splitlines()[0].split(",")) <= keys
    assert set(np.load(folder / "partition.npz")) <= keys
    patterns = [re.escape(key).replace("KIND", r"\w+").replace(r"\.\.\.", ".+") for key in keys]
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        for key in json.loads(line):
            assert any(re.fullmatch(pattern, key) for pattern in patterns), key
    monkeypatch.chdir(folder)
    namespace = {}
    for example in blocks(document, "python"):
        exec(compile(example, name_of(document), "exec"), namespace)
    assert namespace["final"].keys() == {0, 1}
    assert sum(len(part) for part in namespace["parts"]) == 1201
    assert len(namespace["curve"]) == 2
    assert namespace["sent"] > 0


def test_what_a_method_may_call_and_define_is_there():
    text = (ROOT / "docs/adding-a-method.md").read_text(encoding="utf-8")
    paragraph = re.search(r"A client offers (.*?); see .*?A method may also\s+define (.*?); see", text, re.DOTALL)

    offered, defined = (re.findall(r"`(\w+)`", names) for names in paragraph.groups())

    assert [name for name in offered if not callable(getattr(FederatedClient, name, None))] == []
    optional = {name for name in vars(Method) if not name.startswith("_")} - Method.__abstractmethods__
    assert set(defined) == optional - {"config_class", "payload_bytes"}


def test_the_npz_of_the_example_is_one_that_loads(tmp_path, monkeypatch):
    from fedvtc.config.schema import DataConfig
    from fedvtc.learning.data import load_dataset

    (example,) = blocks(ROOT / "docs/data.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/data.md", "exec"), {})

    dataset = load_dataset(DataConfig(name="npz", path="my_images.npz"))

    assert dataset.class_names == ("apple", "pear", "plum")
    assert dataset.train.images_NCHW.shape == (300, 3, 16, 16)


def test_the_data_sets_of_the_table_are_those_of_the_code():
    from fedvtc.config.names import DATASETS

    rows = table_rows(ROOT / "docs/data.md", "")

    assert tuple(cells[0] for cells in rows if len(cells) == 4) == ("data.name", *DATASETS)


def test_the_picture_of_a_round_is_whole_and_brings_its_own_background():
    import xml.etree.ElementTree as tree

    root = tree.parse(ROOT / "docs/round.svg").getroot()
    ids = {element.get("id") for element in root.iter()}
    used = {value[1:] for element in root.iter() for name, value in element.items() if name.endswith("href")}
    width, height = root.get("viewBox").split()[2:]

    assert used
    assert used <= ids
    assert any(
        (element.get("class"), element.get("width"), element.get("height")) == ("panel", width, height)
        for element in root.iter()
    )
