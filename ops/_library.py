"""Loads the operator library, after making sure that it was built for the torch at hand."""

import os
from pathlib import Path

import torch

_HERE = Path(__file__).parent

#: Give this to CMake as CMAKE_PREFIX_PATH, and find_package(Tilewright) finds this package.
cmake_prefix_path = str(_HERE / "share" / "cmake")


def _built_for() -> str:
    """The torch version that the library was built against, from the CMake package beside it."""
    config = _HERE / "share" / "cmake" / "Tilewright" / "TilewrightConfig.cmake"
    if not config.exists():
        raise ImportError(
            "tilewright is not built. In a source tree run `make build`, or "
            "`pip install -e . --no-build-isolation`."
        )
    return config.read_text().split("against torch ")[1].split()[0].rstrip(".,")


def load() -> None:
    """Loads libtilewright, and the emulated device if TILEWRIGHT_DEVICE=simt asks for it.

    Raises:
        ImportError: if torch is of another minor version than the build, or nothing is built.
    """
    built, here = _built_for(), torch.__version__.split("+")[0]
    if built.split(".")[:2] != here.split(".")[:2]:
        raise ImportError(
            f"tilewright was built against torch {built}, but this is torch {here}; one build "
            "serves one minor version. Rebuild it in its source tree with `pip install "
            "--no-build-isolation --no-deps --force-reinstall .` (in place: `-e .`), or install "
            f"torch=={built}."
        )
    torch.ops.load_library(str(_HERE / "lib" / "libtilewright.so"))
    device = os.environ.get("TILEWRIGHT_DEVICE", "")
    if device not in ("", "cpu", "cuda", "simt"):
        raise ImportError(f"TILEWRIGHT_DEVICE must be cpu, cuda or simt, got {device!r}")
    if device == "simt":
        library = _HERE / "lib" / "libtilewright_simt.so"
        if not library.exists():
            raise ImportError(
                "TILEWRIGHT_DEVICE=simt asks for the emulated CUDA device, which this build does "
                "not have; it needs Boost.Context (libboost-context-dev) and CUDA's headers when "
                "it is built"
            )
        torch.ops.load_library(str(library))


def built_cuda() -> str:
    """The CUDA version and architectures of this build, or "" where it is CPU only."""
    from tilewright import _C

    return _C.built_cuda()
