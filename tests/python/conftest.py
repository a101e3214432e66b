"""Devices, tolerances and the launch check that every operator's test shares.

TILEWRIGHT_DEVICE chooses the machine of the whole run: ``cpu`` (default), ``simt`` (the CUDA
kernels on the emulated device; tensors live on the CPU) or ``cuda``.
"""

import itertools
import os
import signal
from pathlib import Path

import pytest
import torch

import tilewright

MACHINE = os.environ.get("TILEWRIGHT_DEVICE") or "cpu"
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def device():
    """Where the tensors of a test live."""
    return torch.device("cuda" if MACHINE == "cuda" else "cpu")


@pytest.fixture
def data_raises():
    """Whether bad data (not shapes) is an error: on the CPU; made harmless by the CUDA kernels."""
    return MACHINE == "cpu"


@pytest.fixture(autouse=True)
def kernels_ran(request):
    """On the emulated device, a test marked `kernels` must have launched device code."""
    if MACHINE != "simt" or request.node.get_closest_marker("kernels") is None:
        yield
        return
    before = torch.ops.tilewright_simt.launch_count()
    yield
    if request.node.get_closest_marker("no_launch") is None:
        assert torch.ops.tilewright_simt.launch_count() > before, "no device code was launched"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """For small models: their threads mostly wait for each other, and crawl on shared cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def another_order():
    """Calling it has the emulated device run threads and blocks in an order not seen before."""
    if MACHINE != "simt":
        yield lambda: None
        return
    seeds = itertools.count(100)
    yield lambda: torch.ops.tilewright_simt.set_order(next(seeds))
    torch.ops.tilewright_simt.set_order(int(os.environ.get("TILEWRIGHT_SIMT_ORDER", "0")))


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "no_launch: of the kernels tests, one that must not launch")


def pytest_collection_modifyitems(config, items):
    """On the emulated device and on a GPU only tests of kernels differ from the CPU's run; tests of
    gigabytes are run where `-m large` asks for them."""
    large = "large" in (config.option.markexpr or "")
    if MACHINE == "cpu" and large:
        return
    kept = [
        item
        for item in items
        if (MACHINE == "cpu" or item.get_closest_marker("kernels") is not None)
        and (large or item.get_closest_marker("large") is None)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_report_header():
    order = os.environ.get("TILEWRIGHT_SIMT_ORDER", "0")
    machine = f"{MACHINE}, order {order}" if MACHINE == "simt" else MACHINE
    if MACHINE == "simt" and torch.ops.tilewright_simt.is_checked():
        machine += ", every access checked"
    return f"tilewright {tilewright.__version__} on {machine}, torch {torch.__version__}"


def pytest_sessionfinish(session):
    """Leaves the names of the kernels that the emulated device ran, for tests/run.py."""
    if MACHINE != "simt":
        return
    path = Path(__file__).parents[2] / "build" / "test_results" / "launched_kernels.txt"
    if path.parent.exists():
        with path.open("a") as file:
            file.writelines(f"{name}\n" for name in torch.ops.tilewright_simt.launched_kernels())
