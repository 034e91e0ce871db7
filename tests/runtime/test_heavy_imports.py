import gc

import pytest

from fedvtc.runtime.heavy_imports import collector_off


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_off_in_the_block_and_then_as_before(was_on):
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ImportError, match="False"), collector_off():
            raise ImportError(gc.isenabled())
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
