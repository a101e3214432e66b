"""What the compiler and the memory report say of each CUDA kernel stays within recorded budgets.

The budgets lie in cuda_budgets.json; `python benchmarks/cuda_static.py --record` writes them. The
compiler's half needs a CUDA build, cuobjdump and nvdisasm; the memory half the emulated device.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import MACHINE

import tilewright

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import cuda_static
import launches
import sass

RECORD = f"`{cuda_static.COMMAND}` records it anew"
# Another release of nvcc, or of the host's compiler, makes somewhat different code.
OTHER_COMPILER = 1.15
OTHER_TRACE = 1.05


def recorded():
    return json.loads(cuda_static.BUDGETS.read_text())


def static_excesses(static, budgets, slack=1.0):
    """What is beyond a budget, in words; static is sass.analyse()'s result."""
    found = []
    for kernel, archs in static.items():
        for arch, figures in archs.items():
            if figures["inner_local"]:
                found.append(
                    f"{kernel} on {arch}: {figures['inner_local']} accesses of local memory in an "
                    "inner loop (spilled registers, or an array with a runtime index)"
                )
            budget = budgets.get(kernel, {}).get(arch)
            if budget is None:
                found.append(f"{kernel} on {arch} has no budget; {RECORD}")
                continue
            for key in ("registers", "local"):
                if figures[key] > budget[key] * slack:
                    found.append(
                        f"{kernel} on {arch}: {key} {figures[key]}, the budget is {budget[key]}; "
                        f"if that is meant, {RECORD}"
                    )
    found += [
        f"{kernel} has a budget and is not built; {RECORD}" for kernel in budgets.keys() - static
    ]
    return found


def memory_excesses(traced, budgets):
    """Likewise for launches.trace()'s result, by short names."""
    found = []
    for kernel, by_launch in traced.items():
        for name, figures in by_launch.items():
            budget = budgets.get(kernel, {}).get("memory", {}).get(name)
            if budget is None:
                found.append(f"{kernel}, launch {name!r}, has no budget; {RECORD}")
                continue
            limits = {key: value * OTHER_TRACE for key, value in budget.items()}
            limits["shared_bytes"] = budgets[kernel]["shared_bytes"]
            for key, limit in limits.items():
                if figures[key] > limit:
                    found.append(
                        f"{kernel}, launch {name!r}: {key} {figures[key]}, the budget is "
                        f"{limit:.3f}; if that is meant, {RECORD}"
                    )
    missed = {(k, name) for k, b in budgets.items() for name in b["memory"]}
    missed -= {(k, name) for k, by_launch in traced.items() for name in by_launch}
    found += [f"{k} is no longer launched by {name!r}; {RECORD}" for k, name in sorted(missed)]
    return found


@pytest.fixture(scope="module")
def static():
    if not tilewright.built_cuda():
        pytest.skip("this build has no CUDA kernels")
    if not cuda_static.LIBRARY.exists():
        pytest.skip("no build tree")
    try:
        return sass.analyse(cuda_static.LIBRARY)
    except sass.MissingTool as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def test_compiled_kernels_keep_to_their_budgets(static):
    budgets = recorded()
    built = {arch for archs in static.values() for arch in archs}
    known = {key for b in budgets["kernels"].values() for key in b if key.startswith("sm_")}
    if not built & known:
        pytest.skip(f"budgets are for {sorted(known)}, this build is for {sorted(built)}")
    of_known = {
        kernel: {arch: f for arch, f in archs.items() if arch in known}
        for kernel, archs in static.items()
    }
    same = budgets["cuda"].split(",")[0] == tilewright.built_cuda().split(",")[0]
    excesses = static_excesses(of_known, budgets["kernels"], 1.0 if same else OTHER_COMPILER)
    assert not excesses, "\n".join(excesses)


@pytest.mark.unchecked
@pytest.mark.kernels
@pytest.mark.no_launch  # launches for the memory report do not count as tests of kernels
@pytest.mark.skipif(MACHINE != "simt", reason="the memory report is the emulated device's")
def test_memory_traffic_keeps_to_its_budgets():
    traced = {sass.short_name(kernel): m for kernel, m in launches.trace().items()}
    assert traced
    excesses = memory_excesses(traced, recorded()["kernels"])
    assert not excesses, "\n".join(excesses)


@pytest.mark.kernels
@pytest.mark.no_launch  # launches for the memory report do not count as tests of kernels
@pytest.mark.skipif(MACHINE != "simt", reason="the memory report is the emulated device's")
def test_switches_of_the_emulated_device():
    device = torch.ops.tilewright_simt
    before = device.is_checked()
    assert before == (os.environ.get("TILEWRIGHT_SIMT_CHECKED", "0") != "0")
    boxes = torch.tensor([[0.0, 0, 1, 1]])
    device.set_checked(False)
    device.set_tracing(True)
    tilewright.nms(boxes, torch.ones(1), 0.5)
    assert not device.memory_report()  # launches that are not checked are not traced
    device.set_checked(True)
    tilewright.nms(boxes, torch.ones(1), 0.5)
    device.set_tracing(False)
    device.set_checked(before)
    assert any("nms_mask_kernel" in name and "float" in name for name in device.memory_report())


def test_every_kind_of_excess_is_named():
    figures = {"registers": 40, "local": 0, "inner_local": 0}
    memory = {"sectors_per_request": 2.0, "wavefronts_over_fewest": 1.0, "shared_bytes": 64}
    budget = {
        "shared_bytes": 64,
        "sm_80": {"registers": 40, "local": 0},
        "memory": {"row": {"sectors_per_request": 2.0, "wavefronts_over_fewest": 1.0}},
    }

    def static_of(**changes):
        return static_excesses({"k": {"sm_80": figures | changes}}, {"k": budget})

    def memory_of(**changes):
        return memory_excesses({"k": {"row": memory | changes}}, {"k": budget})

    assert static_of() == memory_of() == []
    for (excess,) in (
        static_of(registers=41),
        static_of(local=1),
        static_excesses({"k": {"sm_80": figures}}, {}),
        static_excesses({}, {"k": budget}),
        memory_of(sectors_per_request=2.2),
        memory_of(wavefronts_over_fewest=1.1),
        memory_of(shared_bytes=80),
        memory_excesses({"k": {"row": memory}}, {}),
        memory_excesses({}, {"k": budget}),
    ):
        assert cuda_static.COMMAND in excess
    assert "local memory in an inner loop" in static_of(inner_local=2)[0]


def test_reading_of_machine_code():
    listing = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;            /* 0x00000a0000017a02 */
                                                                     /* 0x000fe40000000f00 */
        /*0010*/                   LDG.E R2, [R2.64] ;               /* 0x0000000402027981 */
        /*0020*/                   FFMA R2, R3, R2, R2 ;             /* 0x0000000402027981 */
        /*0030*/              @!P0 STL.64 [R1+0x8], R2 ;             /* 0x0000000402027981 */
        /*0040*/               @P1 BRA 0x20 ;                        /* 0x0000000402027981 */
        /*0050*/              @!P2 BRA P3, 0x10 ;                    /* 0x0000000402027981 */
        /*0060*/                   EXIT ;                            /* 0x0000000402027981 */
        /*0070*/                   BRA 0x70;                         /* 0x0000000402027981 */
"""
    code = sass.instructions(listing)
    assert [name for _, name, _ in code] == [
        "MOV",
        "LDG",
        "FFMA",
        "STL",
        "BRA",
        "BRA",
        "EXIT",
        "BRA",
    ]
    (loop,) = sass.inner_loops(code)  # the outer loop and the trap at the end are none
    assert dict(sass.mix(loop)) == {"float": 1, "local": 1, "control": 1}


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "expected"),
    [
        (32, 256, 0, 1.0),
        (64, 256, 0, 0.5),  # registers
        (65, 256, 0, 0.375),  # they are given out by 8 to a thread
        (32, 64, 0, 1.0),
        (16, 32, 0, 0.5),  # 32 blocks
        (32, 128, 40 * 1024, 0.25),  # shared memory: 41 KB of 164
    ],
)
def test_occupancy_of_sm_80(registers, threads, shared, expected):
    assert sass.occupancy("sm_80", registers, threads, shared) == expected


def test_names_of_kernels():
    for full, short in {
        "void tilewright::f_kernel<float>(tilewright::P<float>)": "f_kernel<float>",
        "tilewright::g_kernel(float*, long)": "g_kernel",
        "void tilewright::h_kernel<double, (tilewright::Mode)1>(int)": "h_kernel<double, (Mode)1>",
    }.items():
        assert sass.short_name(full) == short
