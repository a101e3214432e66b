"""pip's door: configures, builds and installs CMakeLists.txt; holds no source list."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
VERSION = re.search(
    r"project\(tilewright VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()
).group(1)


class CMakeBuild(build_ext):
    """Runs CMake, with the package's folder as the install prefix: the source folder for an
    editable install, the wheel's otherwise."""

    def run(self):
        try:
            import torch
        except ImportError as error:
            raise SystemExit(
                "tilewright is built against the torch that it will run with: install torch, then "
                "`pip install --no-build-isolation .`"
            ) from error
        in_place = bool(self.inplace or getattr(self, "editable_mode", False))
        prefix = ROOT / "ops" if in_place else Path(self.build_lib).resolve() / "tilewright"
        # A wheel has its own build tree: the one in place goes on serving the source folder.
        wheel = f"wheel-{sys.implementation.cache_tag}-torch-{torch.__version__}"
        build = ROOT / "build" / ("cmake" if in_place else wheel)
        options = [
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            f"-DTILEWRIGHT_TORCH_PREFIX={Path(torch.__file__).parent}",
            f"-DTILEWRIGHT_IN_PLACE={'ON' if in_place else 'OFF'}",
            *(() if in_place else ("-DTILEWRIGHT_SIMT=OFF", "-DTILEWRIGHT_TESTS=OFF")),
            f"-DPython3_EXECUTABLE={sys.executable}",
            *os.environ.get("TILEWRIGHT_CMAKE_ARGS", "").split(),
        ]
        if not (build / "CMakeCache.txt").exists() and shutil.which("ninja"):
            options += ["-G", "Ninja"]
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.check_call(["cmake", "-S", ROOT, "-B", build, *options])
        subprocess.check_call(["cmake", "--build", build, "-j", jobs])
        subprocess.check_call(["cmake", "--install", build])

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}


setup(
    version=VERSION,
    packages=[
        "tilewright",
        "tilewright.amp",
        "tilewright.data",
        "tilewright.models",
        "tilewright.train",
        "tilewright.trees",
    ],
    package_dir={"tilewright": "ops"},
    ext_modules=[Extension("tilewright._C", [])],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
