"""Hashes of the user's own code: a file, a package, and what counts as a change."""

import sys

import pytest

from fedvtc.config.code_hash import changed_code, code_hashes
from fedvtc.config.schema import BackboneShare, Config, DataConfig, MethodConfig, PopulationConfig


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A working folder with a module and a package."""
    (tmp_path / "flat_code.py").write_text("one = 1\n")
    (tmp_path / "packed_code/inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/nets.py"):
        (tmp_path / "packed_code" / name).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def hashes():
    names = ("packed_code.inner.nets:net", "timm:resnet18", "resnet8")
    shares = [BackboneShare(name, 1.0) for name in names]
    config = Config(
        data=DataConfig("flat_code:load"), method=MethodConfig("local"), population=PopulationConfig(3, shares)
    )
    return code_hashes(config)


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("flat_code.py", ["flat_code:load"]),
        ("packed_code/__init__.py", ["packed_code.inner.nets:net"]),
        ("packed_code/inner/nets.py", ["packed_code.inner.nets:net"]),
        ("packed_code/new.py", ["packed_code.inner.nets:net"]),
        ("other.py", []),
    ],
)
def test_a_change_of_a_file_changes_the_hash_of_its_package(tmp_path, file, changed):
    before = hashes()
    assert list(before) == ["flat_code:load", "packed_code.inner.nets:net"]
    (tmp_path / file).write_text("two = 2\n")

    assert changed_code([{"code": before}, {}], hashes()) == changed
    assert "flat_code" not in sys.modules


def test_code_without_an_earlier_hash_has_not_changed():
    assert changed_code([{}, {"code": {"a:b": "1"}}, {"code": {"a:b": "2"}}], {"a:b": "2", "c:d": "3"}) == []
