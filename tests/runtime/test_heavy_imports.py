import gc
import importlib
import subprocess
import sys

import pytest

from fedvtc.runtime.heavy_imports import fast_imports
from fedvtc.runtime.stand_ins import StandIn, is_real, stand_in


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_off_in_the_block_and_then_as_before(was_on):
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ImportError, match="False"), fast_imports():
            raise ImportError(gc.isenabled())
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()


IMPORTS = """
import importlib, sys
from fedvtc.runtime.heavy_imports import fast_imports

with fast_imports():
    unused = importlib.import_module("scipy.signal")
    # What TorchMetrics asks.
    assert hasattr(unused, "hamming")
assert "scipy.signal" not in sys.modules
with fast_imports():
    used = importlib.import_module("scipy.signal")
    assert "windows" not in vars(used)
    assert used.windows.hann(3).tolist() == [0, 1, 0]
assert "windows" in vars(sys.modules["scipy.signal"])
"""


def test_scipy_signal_loads_at_its_first_use():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A package `slow` with a submodule `part`, in whose place stand-ins are put."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/__init__.py").write_text("known, other = 'real', 'other'\nfrom slow import part\n")
    (tmp_path / "slow/part.py").write_text("loads = globals().get('loads', 0) + 1\n")
    (tmp_path / "slow/late.py").write_text("import slow.part\nvalue = slow.part.loads\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path)
    stand_in(StandIn("slow", known="stand-in"), StandIn("slow.part", loads="stand-in"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "slow"]:
        del sys.modules[name]


def test_names_of_a_stand_in_do_not_load_the_module(slow):
    package, part = importlib.import_module("slow"), importlib.import_module("slow.part")
    assert (package.known, part.loads) == ("stand-in", "stand-in")
    assert not hasattr(package, "__file__")
    assert not is_real("slow")


@pytest.mark.parametrize("first", ["slow", "slow.part"])
def test_another_name_loads_the_module(slow, first):
    before = importlib.import_module(first)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = before.nothing
    package, part = importlib.import_module("slow"), importlib.import_module("slow.part")
    assert (package.known, package.other, part.loads, package.part) == ("real", "other", 1, part)
    # Whoever imported the stand-in before still gets new names.
    assert before.__name__ == first
    assert is_real("slow")


def test_a_submodule_without_a_stand_in_loads_the_module_once(slow):
    late = importlib.import_module("slow.late")
    assert late.value == 1
    assert late.__spec__.origin.endswith("late.py")
    assert sys.modules["slow"].late is late
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'slow\.never'"):
        importlib.import_module("slow.never")


def test_a_loaded_module_gets_no_stand_in(slow):
    _ = importlib.import_module("slow").other
    stand_in(StandIn("slow", known="stand-in"))
    assert sys.modules["slow"].known == "real"
