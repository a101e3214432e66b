"""The step of a main loop as benchmarks/sass_steps.py reads it from machine code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sass_steps


def listing(*lines):
    return "\n".join(f"        /*{16 * i:04x}*/    {line} ;" for i, line in enumerate(lines))


def test_a_loop_within_and_an_edge():
    """Entry; a loop whose step has a branch around an edge's mask and a loop of products."""
    code = listing(
        "S2R R0, SR_TID.X",  # 00
        "LDSM.16.M88.4 R4, [R2]",  # 10: the step begins
        "HMMA.16816.F32.BF16 R8, R4, R6, R8",  # 20: the loop of products
        "@P1 BRA 0x20",  # 30
        "@!P0 BRA 0x70",  # 40: most steps need no mask
        "FSEL R8, R8, -INF, P2",  # 50
        "FSEL R9, R9, -INF, P2",  # 60
        "MUFU.EX2 R8, R8",  # 70
        "HMMA.16816.F32.BF16 R8, R4, R6, R8",  # 80
        "@P0 BRA 0x10",  # 90
        "EXIT",  # a0
        "BRA 0xb0",  # b0: what nvcc ends functions with
    )
    step = sass_steps.main_step(code, rounds=3)
    assert step == {"shared": 1, "matrix": 4, "control": 5, "special": 1}


def test_of_two_ways_the_one_with_more_products_is_the_step():
    """A warp without rows skips the products; that is not the step."""
    code = listing(
        "@P3 BRA 0x40",  # 00: the step begins, and skips
        "LDSM.16.M88.4 R4, [R2]",  # 10
        "HMMA.16816.F32.BF16 R8, R4, R6, R8",  # 20
        "NOP",  # 30
        "@P0 BRA 0x0",  # 40
        "EXIT",  # 50
    )
    assert sass_steps.main_step(code) == {"control": 3, "shared": 1, "matrix": 1}


def test_a_table_of_jumps():
    """Where BRX leads is not in the listing: to what nothing else leads to."""
    code = listing(
        "BRX R2 -0x10",  # 00: the step begins
        "FADD R1, R1, R2",  # 10: one case
        "BRA 0x50",  # 20
        "HMMA.16816.F32.BF16 R8, R4, R6, R8",  # 30: another
        "BRA 0x50",  # 40
        "@P0 BRA 0x0",  # 50
        "EXIT",  # 60
    )
    assert sass_steps.main_step(code) == {"control": 3, "matrix": 1}


def test_without_a_loop():
    assert not sass_steps.main_step(listing("FADD R1, R1, R2", "EXIT"))
