"""Links, characters, names and versions in the documents."""

import re
import tomllib
import xml.etree.ElementTree as tree
from pathlib import Path

import pytest
import yaml

from fedvtc.config import Config, field_docs
from fedvtc.learning.methods import config_classes


@pytest.fixture(scope="module")
def keys():
    """All config keys, those of every method included."""
    own = [doc for cls in config_classes().values() for doc in field_docs(cls, "method")]
    return {doc.key for doc in [*field_docs(Config), *own]}


def test_every_relative_link_has_a_target(document):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        assert not Path(file).is_absolute(), target
        linked = document.parent / file if file else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_a_document_is_ascii_and_names_no_private_address(document):
    text = document.read_bytes()

    assert text.isascii()
    for address in (b"index-url", b"file://", b"localhost", b"/home/"):
        assert address not in text, address


def test_the_locked_dependencies_name_no_registry(root):
    text = (root / "requirements.lock").read_text(encoding="utf-8")

    assert "://" not in text
    assert "index" not in text


def test_every_key_and_every_file_in_code_spans_exists(document, root, keys):
    sections = {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}
    code = " ".join(re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8")))

    top = "|".join(sorted({section for section in sections if "." not in section}))
    files = re.compile(r"\.(py|json|yaml|npz|png|jsonl|csv|load|log)\b")
    for named in re.findall(rf"(?<![\w./-])((?:{top})(?:\.[a-z_]+)+)(?![\w/])", code):
        assert named in keys | sections or files.search(named), named
    if document.name != "adding-a-method.md":
        for named in re.findall(r"(?<![\w./])((?:conf|src|tests|docs|jobs)/[\w./-]*\w\.\w+)", code):
            assert (root / named).exists(), named


def test_no_table_has_a_column_of_the_paper(document):
    for heading in re.findall(r"^(\|.*\|)\n\|[-| :]+\|$", document.read_text(encoding="utf-8"), re.MULTILINE):
        assert "paper" not in heading.lower()


def test_every_make_target_in_code_exists(document, root):
    targets = re.findall(r"^([\w-]+):.*##", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    # Lines of code only: prose has `make` as a verb.
    lines = re.findall(r"^(?: {4})?make (\w[\w -]*?)(?: *#.*)?$", document.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(" ".join(lines).split()) <= set(targets)


def test_the_index_lists_every_document(root, documents):
    linked = set()
    for index in (root / "docs/index.md", root / "docs/methods/index.md"):
        found = re.findall(r"\]\(([^)#]+\.md)\)", index.read_text(encoding="utf-8"))
        linked |= {(index.parent / target).resolve() for target in found}

    assert linked | {root / "docs/index.md"} == set(documents)


def test_version_and_date_are_the_same_in_all_files(root):
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")

    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[:2] == ["[Unreleased]", f"[{version}] - {citation['date-released']}"]
    assert citation["version"] == version
    entry, paper = re.findall(r"^@[\s\S]*?^}", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    fields = dict(re.findall(r"^  (\w+) += \{+([^}]+)\}+,?$", entry, re.MULTILINE))
    written = [fields[name] for name in ("title", "author", "version", "year")]
    assert written == [citation["title"], citation["authors"][0]["name"], version, str(citation["date-released"].year)]
    assert citation["references"][0]["title"] in paper


def test_the_picture_of_a_round_is_complete_and_has_its_own_background(root):
    picture = tree.parse(root / "docs/round.svg").getroot()
    ids = {element.get("id") for element in picture.iter()}
    used = {value[1:] for element in picture.iter() for name, value in element.items() if name.endswith("href")}
    width, height = picture.get("viewBox").split()[2:]

    assert used
    assert used <= ids
    panels = [element for element in picture.iter() if element.get("class") == "panel"]
    assert [(panel.get("width"), panel.get("height")) for panel in panels] == [(width, height)]
