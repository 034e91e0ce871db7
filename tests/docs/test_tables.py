"""Tables of the documents agree with the code: keys, defaults, rooms, data sets, the contract of a method."""

import re

from fedvtc.commands.privacy.measuring import MEASURES
from fedvtc.config import field_docs
from fedvtc.config.names import DATASETS
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data.test_sets import CHANGES, SOURCES
from fedvtc.learning.methods import Method
from fedvtc.learning.methods.fedvtc import FedVTCConfig


def test_the_table_of_fedvtc_has_the_keys_and_defaults_of_the_code(rows, root):
    common = {"method.name", "method.label"}
    table = rows(root / "docs/method.md", "method.")
    docs = [doc for doc in field_docs(FedVTCConfig, "method") if doc.key not in common]

    assert [(key, default) for key, default, *_ in table] == [(doc.key, doc.default) for doc in docs]
    for (key, _, readings, _), doc in zip(table, docs, strict=True):
        if " | " in doc.type:
            for choice in doc.type.split(" | "):
                assert f"`{choice}`" in f"`{readings}`", key


def test_every_room_has_a_row_and_a_page(root):
    text = (root / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (root / "src/fedvtc").glob("*/__init__.py")}
    row = r"^\| \d \| \[`(\w+)/`\]\(architecture/(\w+)\.md\) \|"

    assert sorted(re.findall(row, text, re.MULTILINE)) == sorted((room, room) for room in rooms)


def test_every_module_in_the_architecture_pages_exists(root):
    modules = {
        path.relative_to(root).as_posix() for folder in ("src", "tests") for path in (root / folder).rglob("*.py")
    }
    for page in [root / "docs/architecture.md", *sorted((root / "docs/architecture").glob("*.md"))]:
        for named in re.findall(r"`([a-z_/]+\.py)`", page.read_text(encoding="utf-8")):
            assert any(f"/{module}".endswith(f"/{named}") for module in modules), (page.name, named)


def test_the_steps_that_a_method_may_call_and_define_exist(root):
    text = (root / "docs/adding-a-method.md").read_text(encoding="utf-8")
    paragraph = re.search(r"A client offers (.*?); see\s.*?A method may also\s+define (.*?); see", text, re.DOTALL)

    offered, defined = (re.findall(r"`(\w+)`", names) for names in paragraph.groups())

    assert [name for name in offered if not callable(getattr(FederatedClient, name, None))] == []
    optional = {name for name in vars(Method) if not name.startswith("_")} - Method.__abstractmethods__
    assert set(defined) == optional - {"config_class"}


def test_the_table_of_data_sets_is_complete(rows, root):
    table = rows(root / "docs/data.md", "")

    assert tuple(row[0] for row in table if len(row) == 4) == ("data.name", *DATASETS)


def test_the_table_of_privacy_measures_has_the_meanings_of_the_code(rows, root):
    described = {row[0]: row[1] for row in rows(root / "docs/privacy.md", "") if len(row) == 2 and "/" in row[0]}

    assert described == MEASURES


def test_the_table_of_test_sets_is_complete(rows, root):
    described = {row[0].partition(":")[0] for row in rows(root / "docs/evaluate.md", "") if ":" in row[0]}

    assert described == {*CHANGES, *SOURCES}
