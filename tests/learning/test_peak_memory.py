"""Peaks of memory: of a process, of phases one after the other and inside each other, and where a system tells none."""

import mmap
import sys

import pytest

from fedvtc.learning.peak_memory import Peak, measured_memory, peak_memory_bytes, restart_peak_memory

MIB = 2**20


def take(num_bytes):
    """Takes new pages of the system for a moment; an array may lie in memory that this process holds already."""
    with mmap.mmap(-1, num_bytes) as block:
        for place in range(0, num_bytes, mmap.PAGESIZE):
            block[place] = 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts anew")
def test_each_phase_and_each_run_of_a_process_counts_its_own_memory():
    restart_peak_memory()
    take(64 * MIB)
    with_block = peak_memory_bytes()
    peaks = {}
    for name, size in (("large", 32 * MIB), ("small", 1), ("large", 1)):
        with measured_memory(peaks, name):
            take(size)
    # Linux counts pages in lots.
    assert peaks["memory/large"] > peaks["memory/small"] + 24 * MIB
    assert peaks["memory/large"] < with_block - 24 * MIB
    assert peak_memory_bytes() > with_block - 8 * MIB
    restart_peak_memory()
    assert peak_memory_bytes() < with_block - 32 * MIB


@pytest.fixture
def gauge():
    """A gauge whose memory a test sets: `[present, peak]`."""
    return [0.0, 0.0]


def use(gauge, value):
    gauge[:] = [value, max(gauge[1], value)]


def restart(gauge):
    gauge[1] = gauge[0]
    return True


def test_a_phase_inside_another_keeps_the_peak_of_the_other(gauge):
    peak, peaks = Peak(lambda: gauge[1], lambda: restart(gauge)), {}
    use(gauge, 9.0)
    use(gauge, 1.0)
    with peak.phase(peaks, "outer"):
        use(gauge, 5.0)
        use(gauge, 2.0)
        with peak.phase(peaks, "inner"):
            use(gauge, 3.0)
        use(gauge, 1.0)
    assert (peaks, peak.total()) == ({"outer": 5.0, "inner": 3.0}, 9.0)
    peak.forget()
    assert peak.total() == 1.0


def test_an_error_ends_a_phase(gauge):
    peak, peaks = Peak(lambda: gauge[1], lambda: restart(gauge)), {}
    use(gauge, 4.0)
    with pytest.raises(ZeroDivisionError), peak.phase(peaks, "first"):
        1 / 0  # noqa: B018
    use(gauge, 1.0)
    with peak.phase(peaks, "second"):
        pass
    assert peaks["second"] == 1.0


@pytest.mark.parametrize(("read", "is_restarted"), [(None, True), (7.0, False)])
def test_a_peak_that_a_system_does_not_tell_is_absent(read, is_restarted):
    peak, peaks = Peak(lambda: read, lambda: is_restarted), {}
    with peak.phase(peaks, "train"):
        pass
    assert (peaks, peak.total()) == ({}, read)
