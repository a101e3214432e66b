"""The rules that hold the project together: instruction sets, what may include what, docs,
imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tilewright
from tilewright import _library
from tilewright.__main__ import info, operators

ROOT = Path(__file__).parent.parent.parent
OBJECTS = ROOT / "build" / "cmake" / "CMakeFiles"
ISAS = ("baseline", "avx2", "avx512")


def sources(*patterns):
    return [p for pattern in patterns for p in (ROOT / "csrc").rglob(pattern)]


@pytest.mark.skipif(not OBJECTS.exists(), reason="no build tree")
def test_instruction_sets_share_no_weak_symbol():
    """The linker keeps one of several weak definitions: AVX-512 code must not come in that way."""
    weak = {}
    for isa in ISAS:
        objects = list((OBJECTS / f"tilewright_{isa}.dir").rglob("*.o"))
        if not objects:
            pytest.skip(f"no {isa} objects on this machine")
        symbols = subprocess.run(
            ["nm", *objects], check=True, capture_output=True, text=True
        ).stdout
        weak[isa] = set(re.findall(r" [WVu] (\S+)", symbols)) - {"DW.ref.__gxx_personality_v0"}
    for i, first in enumerate(ISAS):
        for second in ISAS[i + 1 :]:
            assert not weak[first] & weak[second], (first, second)


def test_tables_of_docs_are_those_of_the_results():
    """`python benchmarks/harness.py` writes them."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import harness

    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = [page.read_text() for page in pages]
    assert [harness.with_tables(text) for text in found] == found
    assert sum(text.count("<!-- table ") for text in found) >= 4


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_runs(isa):
    if ISAS.index(isa) > ISAS.index(tilewright._C.cpu_instruction_set()):
        pytest.skip(f"this machine has no {isa}")
    script = """
import test_nms, test_roi_align, torch, tilewright
from checks import threads
print(tilewright._C.cpu_instruction_set())
for dtype in test_roi_align.DTYPES:
    for last in (False, True):
        torch.manual_seed(0)
        test_roi_align.test_forward_and_backward(torch.device("cpu"), dtype, last, 2, False)
test_roi_align.test_wide_boxes_with_few_samples(torch.device("cpu"))
test_nms.test_nms(torch.device("cpu"), 200, 0.3)
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env={"TILEWRIGHT_ISA": isa, "TILEWRIGHT_DEVICE": "cpu", "PYTHONPATH": _python_path()},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [isa]


def _python_path():
    return str(Path(tilewright.__file__).resolve().parent.parent / "build" / "python")


def test_unknown_instruction_set():
    run = subprocess.run(
        [sys.executable, "-c", "import tilewright; tilewright._C.cpu_instruction_set()"],
        env={"TILEWRIGHT_ISA": "sse9", "PYTHONPATH": _python_path()},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "TILEWRIGHT_ISA must be baseline, avx2 or avx512, got sse9" in run.stderr


def test_only_core_cuda_knows_the_compiler():
    """Kernels stay ordinary CUDA, so that the emulated device runs what a GPU runs."""
    words = re.compile(r"__CUDACC__|__CUDA_ARCH__|TILEWRIGHT_SIMT|<c10/cuda|<ATen/cuda|<<<")
    for path in sources("*.h", "*.cpp", "*.cu", "*.cuh"):
        if "cuda" in path.relative_to(ROOT / "csrc").parts:
            continue
        assert not words.search(path.read_text()), path


def test_hot_code_includes_no_torch():
    for path in sources("*_kernel.cuh", "*_math.h", "*_cpu_kernel.cpp"):
        assert not re.search(r"#include <(torch|ATen/(ATen|core|Tensor))", path.read_text()), path


def test_lines_have_100_columns():
    # clang-format leaves comments alone.
    for folder in ("csrc", "tests/cpp", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".h", ".cpp", ".cu", ".cuh"}:
                for number, line in enumerate(path.read_text().splitlines(), start=1):
                    assert len(line) <= 100, f"{path}:{number}"


@pytest.mark.smoke
def test_documented_schemas_are_the_registered_ones():
    pages = "\n".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    lines = re.findall(r"^[a-z_0-9]+\(.*\) -> .*$", pages, re.M)
    documented = {str(torch._C.parse_schema(f"tilewright::{line}")) for line in lines}
    registered = {
        str(schema)
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("tilewright::") and not schema.name.startswith("tilewright::_")
    }
    assert documented == registered


@pytest.mark.smoke
def test_info_lists_every_operator():
    table = dict(operators())
    assert {"CPU", "Meta", "Autograd", "Autocast"} <= set(table["tilewright::roi_align"])
    assert {"CPU", "Meta", "Autocast"} <= set(table["tilewright::nms"])
    if tilewright.built_cuda():
        assert "CUDA" in table["tilewright::roi_align"]
    text = info()
    assert tilewright.__version__ in text
    assert all(name in text for name in table)
    assert all(keys for keys in table.values()), "an operator without a kernel"


def test_another_torch_is_refused_with_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.13.0+cpu")
    with pytest.raises(
        ImportError, match=r"built against torch 2\.\S+, but this is torch 1\.13\.0"
    ):
        _library.load()


def test_unknown_device_is_refused(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_DEVICE", "tpu")
    with pytest.raises(ImportError, match="must be cpu, cuda or simt, got 'tpu'"):
        _library.load()


def test_every_package_is_installed():
    """An installation from a wheel takes the packages that are named; one in place takes all."""
    named = set(re.findall(r'"tilewright\.?(\w*)"', (ROOT / "setup.py").read_text()))
    folders = {path.parent.name for path in (ROOT / "ops").glob("*/__init__.py")}
    assert {name for name in named if not name.startswith("_")} == folders | {""}


def test_cmake_package_is_where_it_says():
    package = Path(tilewright.cmake_prefix_path) / "Tilewright" / "TilewrightConfig.cmake"
    assert package.exists()
    assert (package.parents[3] / "include" / "tilewright" / "detection" / "roi_align.h").exists()
