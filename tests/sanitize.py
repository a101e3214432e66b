"""The C++ tests under AddressSanitizer, LeakSanitizer and UBSan: builds and runs them.

    python tests/sanitize.py [baseline] [avx2] [avx512]

tests/run.py takes its suites. What is built with the sanitizers is libtilewright (host code, CPU
kernels, models) and tests/cpp, at -O1, in build/sanitize; torch's own libraries are not. The
emulated CUDA device is left out: AddressSanitizer keeps a map of each thread's stack, which fibers
change under its feet, and the device's checks of its own are stricter.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sanitize"
PROGRAM = BUILD / "tests" / "cpp" / "tilewright_test"
LOG = ROOT / "build" / "sanitize_log.txt"
FLAGS = "address,undefined"  # as in CMakeLists.txt
ISAS = ("baseline", "avx2", "avx512")

# Leaks too are looked for. torch leaves none that these tests meet, so nothing is suppressed.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def available():
    """Whether a program with the sanitizers can be built and run here."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None or shutil.which("cmake") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "a.cpp"), Path(folder, "a")
        source.write_text("int main() { return 0; }\n")
        command = [compiler, f"-fsanitize={FLAGS}", source, "-o", program]
        built = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return built and subprocess.run([program], capture_output=True, check=False).returncode == 0


def machine_isas():
    """The instruction sets that this machine can run, the best one last."""
    from torch.backends.cpu import get_cpu_capability

    best = get_cpu_capability().lower()
    return ISAS[: ISAS.index(best) + 1] if best in ISAS else ISAS[:1]


def suites(results):
    """(name, command, environment, results file) of each suite, as tests/run.py has them; none
    where the sanitizers or GoogleTest are missing. The best instruction set runs all tests, the
    others those of the kernels."""
    ordinary = ROOT / "build" / "cmake" / "tests" / "cpp" / "tilewright_test"
    if not ordinary.exists() or not available():
        return []
    found = []
    for isa in reversed(isas := machine_isas()):
        file = results / f"sanitized-{isa}.xml"
        command = [sys.executable, str(Path(__file__)), isa, f"--gtest_output=xml:{file}"]
        if isa != isas[-1]:
            command.append("--gtest_filter=Edges.*")
        found.append((f"sanitized-{isa}", command, {}, file))
    return found


def build():
    """Builds the sanitized tests; the program's path."""
    import torch

    options = {
        "TILEWRIGHT_SANITIZE": "ON",
        "TILEWRIGHT_CUDA": "OFF",
        "TILEWRIGHT_SIMT": "OFF",
        "TILEWRIGHT_PYTHON": "OFF",
        "TILEWRIGHT_SANITIZED_ISAS": ";".join(machine_isas()),
        "TILEWRIGHT_TORCH_PREFIX": Path(torch.__file__).parent,
    }
    configure = ["cmake", "-S", ROOT, "-B", BUILD, *(f"-D{k}={v}" for k, v in options.items())]
    if not (BUILD / "CMakeCache.txt").exists() and shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:
        for command in (configure, ["cmake", "--build", BUILD, "-j", jobs]):
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode != 0:
                log.flush()
                sys.exit(f"{LOG.read_text()[-8000:]}\nsanitize: the build failed: {LOG}")
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", BUILD / "tree" / "lib" / "libtilewright.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "__asan_report_load" not in symbols or "__ubsan_handle" not in symbols:
        sys.exit("sanitize: libtilewright.so was built without the sanitizers")
    return PROGRAM


def main():
    isas = [word for word in sys.argv[1:] if not word.startswith("-")] or machine_isas()
    arguments = [word for word in sys.argv[1:] if word.startswith("-")]
    program = build()
    for isa in isas:
        environment = {**os.environ, **OPTIONS, "TILEWRIGHT_ISA": isa}
        command = [program, "--gtest_brief=1", *arguments]
        status = subprocess.run(command, env=environment, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
