"""Memory in large pages."""

from __future__ import annotations

import gc
import mmap
import os

import numpy as np
import pytest

from refnet_kernels.system import pages


@pytest.mark.parametrize("nbytes", [0, 1, pages.LARGE_BYTES - 1, pages.LARGE_BYTES, pages.LARGE_BYTES + 4097])
def test_zeros_that_are_the_callers_own(nbytes: int) -> None:
    first, second = pages.zeros(nbytes), pages.zeros(nbytes)
    assert first.shape == (nbytes,)
    assert not first.any()
    first[...] = 1
    assert not second.any()
    assert first.all()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the address space is read from Linux's /proc")
def test_memory_lives_as_long_as_a_view_and_goes_back() -> None:
    view = pages.zeros(pages.LARGE_BYTES)[10:20]
    gc.collect()
    view[...] = 7
    assert view.tolist() == [7] * 10
    before = _mapped()
    kept = pages.zeros(16 * pages.LARGE_BYTES)
    assert _mapped() - before >= kept.nbytes
    del kept
    assert _mapped() - before < pages.LARGE_BYTES


def _mapped() -> int:
    """Bytes of the process's address space."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


@pytest.mark.skipif(os.name != "posix", reason="memory is NumPy's there")
def test_no_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="MiB for one more array"):
        pages.zeros(2**60)


def test_where_large_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert np.count_nonzero(pages.zeros(pages.LARGE_BYTES)) == 0
