"""Large results on the CPU lie in memory that asks for huge pages."""

from pathlib import Path

import pytest
import torch

import tilewright

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def flags_at(address):
    """The kernel's flags of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no mapping holds the address")


@pytest.mark.skipif(not SETTING.exists(), reason="this system has no huge pages on request")
def test_a_large_result_asks_for_huge_pages():
    boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]).repeat(700, 1)
    features = torch.randn(1, 256, 4, 4, requires_grad=True)
    large = tilewright.roi_align(features, boxes, 7)  # 35 MB
    assert "hg" in flags_at(large.data_ptr() + large.nbytes // 2)
    assert torch.equal(large[0], large[-1])
