import gc
import importlib
import sys

import pytest

from fedvtc.runtime.heavy_imports import fast_imports


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


def test_scipy_signal_loads_at_its_first_use(monkeypatch):
    monkeypatch.delitem(sys.modules, "scipy.signal", raising=False)
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
