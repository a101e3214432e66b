"""Runs every test suite of the project, two at a time, and sums them up in the last line.

The C++ tests run twice, the second time under the sanitizers (sanitize.py). The Python tests run on
the CPU, then those of kernels on the emulated CUDA device: while every access of device code is
checked, but those that would only make others' accesses again, which run without; and a subset
under further orders of threads and blocks. With TILEWRIGHT_DEVICE=cuda they run on the GPU instead.
What is not built here (no GoogleTest, no Boost.Context) is left out with a line; where CI is set,
that is a failure.
"""

import itertools
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sanitize

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "cmake"
RESULTS = ROOT / "build" / "test_results"
ORDERS = (1, 2, 7)  # seeds; 0 is the order of indices
# Suites at a time: much of each is Python or one thread of a compiler.
TOGETHER = 2

sys.path.insert(0, str(ROOT / "benchmarks"))
import sass  # noqa: E402


def suites():
    """(name, command, environment, results file) of each suite, and lines on what is left out."""
    found, left_out = [], []
    programs = ("simt/tilewright_simt_test", "simt/tilewright_simt_fit_test", "cpp/tilewright_test")
    for program in (f"tests/{name}" for name in programs):
        name = Path(program).name
        if (BUILD / program).exists():
            results = RESULTS / f"{name}.xml"
            command = [str(BUILD / program), "--gtest_brief=1", f"--gtest_output=xml:{results}"]
            found.append((name, command, {}, results))
        else:
            left_out.append(f"{name}: not built (GoogleTest or Boost.Context is missing)")

    def python(name, *arguments, **environment):
        results = RESULTS / f"{name}.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={results}", *arguments]
        found.append((name, command, environment, results))

    if os.environ.get("TILEWRIGHT_DEVICE") == "cuda":
        python("python-cuda", TILEWRIGHT_DEVICE="cuda")
        return found, left_out
    sanitized = sanitize.suites(RESULTS)
    found += sanitized
    if not sanitized:
        left_out.append("sanitized: GoogleTest or the sanitizers are missing")
    python("python-cpu", TILEWRIGHT_DEVICE="cpu")
    if (ROOT / "ops" / "lib" / "libtilewright_simt.so").exists():
        first, *others = ORDERS
        for name, marked, checked in (
            ("python-simt-checked", "not unchecked", "1"),
            ("python-simt", "unchecked", "0"),
        ):
            python(
                name,
                "-m",
                marked,
                TILEWRIGHT_DEVICE="simt",
                TILEWRIGHT_SIMT_CHECKED=checked,
                TILEWRIGHT_SIMT_ORDER=str(first),
            )
        for order in others:
            python(
                f"python-simt-order-{order}",
                "-m",
                "orders",
                TILEWRIGHT_DEVICE="simt",
                TILEWRIGHT_SIMT_ORDER=str(order),
            )
    else:
        left_out.append(
            "python-simt: the emulated device is not built (Boost.Context or CUDA headers missing)"
        )
    return found, left_out


def missed_kernels():
    """Kernels of the CUDA build that no emulated test launched; None where there is no such
    build."""
    library, launched = (
        BUILD / "tree" / "lib" / "libtilewright.so",
        RESULTS / "launched_kernels.txt",
    )
    if not library.exists() or not launched.exists():
        return None
    symbols = subprocess.run(
        ["nm", "-C", str(library)], check=True, capture_output=True, text=True
    ).stdout
    if "__cudaRegisterFatBinary" not in symbols:
        return None
    try:
        built = sass.kernels(library)
    except sass.MissingTool:  # the host's stubs of kernels have their names
        found = re.findall(r" [tTW] (void tilewright::on_cuda::\w+_kernel\S.*\))$", symbols, re.M)
        built = {kernel.replace("on_cuda::", "") for kernel in found}
    return sorted(built - set(launched.read_text().splitlines())) if built else ["none was found"]


def read(results):
    """(passed, failed, skipped) of a JUnit file; a suite that left none has failed."""
    if not results.exists():
        return 0, 1, 0
    cases = ElementTree.parse(results).getroot().iter("testcase")
    passed = failed = skipped = 0
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def run(suite):
    """Runs a suite to its end: its name, (passed, failed, skipped), seconds, what it printed."""
    name, command, environment, results = suite
    results.unlink(missing_ok=True)
    print(f"-- {name} begins", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    counts = read(results)
    if done.returncode != 0 and counts[1] == 0:  # a crash, or no test at all
        counts = (counts[0], 1, counts[2])
    return name, counts, time.monotonic() - start, done.stdout


def lanes(found):
    """The suites in lists, each to be run in its order: the sanitized ones build in one place."""
    sanitized = [suite for suite in found if suite[0].startswith("sanitized")]
    alone = [[suite] for suite in found if suite not in sanitized]
    return [sanitized, *alone] if sanitized else alone


def run_lane(lane):
    return [run(suite) for suite in lane]


def main():
    RESULTS.mkdir(parents=True, exist_ok=True)
    # OpenMP threads wait by spinning: beside another busy program, tests of small models would take
    # many times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    found, left_out = suites()
    (RESULTS / "launched_kernels.txt").unlink(missing_ok=True)
    total = [0, 0, 0]
    summary = []
    with ThreadPoolExecutor(TOGETHER) as pool:
        for name, counts, seconds, output in itertools.chain.from_iterable(
            pool.map(run_lane, lanes(found))
        ):
            print(f"== {name}\n{output}", flush=True)
            total = [a + b for a, b in zip(total, counts, strict=True)]
            summary.append(
                "{:24} {:5} passed {:3} failed {:3} skipped {:6.0f} s".format(
                    name, *counts, seconds
                )
            )
    missed = missed_kernels()
    if missed is not None:
        total[1 if missed else 0] += 1
        summary.append(
            f"kernels of the CUDA build that the emulated tests missed: {missed or 'none'}"
        )
    if left_out and os.environ.get("CI"):  # there everything can be installed
        total[1] += len(left_out)
    print("\n".join(["==", *summary, *left_out]))
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
