"""Code examples of the documents run, and the described run folder is the written one."""

import ast
import importlib
import json
import re
import sys

import numpy as np
import pytest
import yaml

from fedvtc.config import Config, field_docs, load
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning import methods
from fedvtc.learning.methods import Task, build, config_classes, largest_bytes
from fedvtc.testing import check_method


@pytest.fixture
def shared_proxy(blocks, root, tmp_path, monkeypatch):
    """The method of docs/adding-a-method.md, beside the other methods: the path of its YAML, its test, its checks."""
    document = root / "docs/adding-a-method.md"
    code, _, _, test, check = blocks(document, "python")
    config, _ = blocks(document, "yaml")
    for name, text in (("shared_proxy.py", code), ("shared_proxy.yaml", config)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fedvtc.learning.methods.shared_proxy", raising=False)
    monkeypatch.chdir(root)
    return tmp_path / "shared_proxy.yaml", test, check


@pytest.mark.slow
def test_the_example_of_a_method_runs(shared_proxy, tiny_run, tmp_path):
    file, *_ = shared_proxy
    files, overrides = tiny_run
    config = load([*files, file], [*overrides, f"run.output_dir={tmp_path}"], methods=config_classes())

    summary = run_federation(config, plain=True)

    method = build(config.method, Task(num_classes=10, num_channels=1, image_size=8, feature_size=8, seed=0))
    (proxy_bytes,) = {ways["proxy"] for ways in largest_bytes(method, 2).values()}
    records = [json.loads(line) for line in (summary.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record.get("bytes/up/proxy") for record in records] == [2 * proxy_bytes, 2 * proxy_bytes, None]
    assert records[1]["bytes/down/proxy"] == 2 * proxy_bytes
    # A client trains alone in its first round; its memory counts the rounds.
    assert ["loss/mutual" in record for record in records] == [False, True, False]
    assert records[2]["test/accuracy/mean"] > 0


def test_the_test_of_the_example_passes(shared_proxy):
    _, test, check = shared_proxy
    namespace = {}
    exec(compile(test, "docs/adding-a-method.md", "exec"), namespace)
    exec(compile(check, "docs/adding-a-method.md", "exec"), {})

    tests = [function for name, function in namespace.items() if name.startswith("test_")]
    assert len(tests) == 2
    for function in tests:
        function()


@pytest.mark.slow
def test_the_example_of_a_plain_module_runs_and_resumes_outside_of_the_package(
    blocks, root, tiny_run, tmp_path, monkeypatch
):
    _, code, *_ = blocks(root / "docs/adding-a-method.md", "python")
    (tmp_path / "shared_probe.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    files, overrides = tiny_run
    config = load(files, [*overrides, "run.rounds=1", "method.name=shared_probe:SharedProbe"], methods=config_classes())

    folder = run_federation(config, plain=True).folder
    resume_federation(folder, ["run.rounds=2"], plain=True)

    check_method(sys.modules.pop("shared_probe").SharedProbe)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rounds = [record for record in records if record["phase"] == "round"]
    # The probe of 64 pixels and 10 classes, in float32.
    assert [record["bytes/up/probe"] for record in rounds] == [2 * 650 * 4, 2 * 650 * 4]
    assert rounds[1]["loss/probe"] < rounds[0]["loss/probe"]


def test_the_example_of_a_memory_of_images_passes_the_checks(blocks, root, tmp_path, monkeypatch):
    *_, code, _, _ = blocks(root / "docs/adding-a-method.md", "python")
    (tmp_path / "self_distillation.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    check_method(importlib.import_module("self_distillation").SelfDistillation)

    sys.modules.pop("self_distillation")


def test_a_method_outside_of_the_package_has_the_config_of_the_document(blocks, root, tmp_path, monkeypatch):
    document = root / "docs/adding-a-method.md"
    (tmp_path / "shared_proxy.py").write_text(blocks(document, "python")[0], encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(blocks(document, "yaml")[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    method = load(["mine.yaml"], [], methods=config_classes()).method
    sys.modules.pop("shared_proxy")
    assert (type(method).__name__, method.label, method.warm_up) == ("SharedProxyConfig", "Shared proxy", 1)


@pytest.mark.slow
def test_the_run_folder_is_as_described(blocks, rows, root, tiny_run, tmp_path, monkeypatch):
    document = root / "docs/run-folder.md"
    monkeypatch.chdir(root)
    files, overrides = tiny_run
    fast = ["method.generator.epochs=1", "method.finetune.epochs=1", "method.finetune.images_per_class=4"]
    config = load(files, [*overrides, *fast, f"run.output_dir={tmp_path}"], methods=config_classes())

    folder = run_federation(config, plain=True).folder

    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    general = {re.sub(r"client_\d+", "client_0000", re.sub(r"\d{6}", "000010", name)) for name in written}
    assert general == {row[0] for row in rows(document, "") if len(row) == 3}
    keys = {name.strip("` ") for row in rows(document, "") if len(row) == 2 for name in row[0].split(",")}
    assert set(json.loads((folder / "run.json").read_text())) <= keys
    sections = {doc.key.split(".")[0] for doc in field_docs(Config)}
    assert set(yaml.safe_load((folder / "config.yaml").read_text())) == sections
    assert set((folder / "clients.csv").read_text().splitlines()[0].split(",")) <= keys
    assert set(np.load(folder / "partition.npz")) <= keys
    patterns = [re.escape(key).replace("KIND", r"\w+").replace(r"\.\.\.", ".+") for key in keys]
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        for key in json.loads(line):
            assert any(re.fullmatch(pattern, key) for pattern in patterns), key

    monkeypatch.chdir(folder)
    namespace = {}
    for example in blocks(document, "python"):
        exec(compile(example, document.name, "exec"), namespace)
    assert namespace["final"].keys() == {0, 1}
    assert sum(len(part) for part in namespace["parts"]) == 1201
    assert len(namespace["curve"]) == 2
    assert namespace["sent"] > 0


def test_the_example_of_an_npz_file_loads(blocks, root, tmp_path, monkeypatch):
    from fedvtc.config.schema import DataConfig
    from fedvtc.learning.data import load_dataset

    (example,) = blocks(root / "docs/data.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/data.md", "exec"), {})

    dataset = load_dataset(DataConfig(name="npz", path="my_images.npz"))

    assert dataset.class_names == ("apple", "pear", "plum")
    assert dataset.train.images_NCHW.shape == (300, 3, 16, 16)


def test_every_name_that_an_example_imports_from_fedvtc_exists(document, blocks):
    for example in blocks(document, "python"):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("fedvtc"):
                if node.module == "fedvtc.learning.methods.shared_proxy":
                    continue  # The module that the document adds.
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_api_page_names_what_exists(root):
    text = (root / "docs/reference/api.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. auto(module|class|function):: (fedvtc[\w.]+)$", text, re.MULTILINE)

    assert named
    for kind, name in named:
        if kind == "module":
            importlib.import_module(name)
        else:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
