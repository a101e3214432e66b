#!/bin/sh
# Builds tilewright against another torch, CPU only and in an environment of its own below build/compat, and
# runs the smoke tests there: `make compat TORCH=2.15.0`. What is built for development stays as it is.
#
# CPU only, because a wheel of torch may come with another CUDA than the nvcc at hand.
set -eu
torch=$1
python=${2:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
home=$root/build/compat/torch-$torch
venv=$home/venv/bin
unset PYTHONPATH PYTHONHOME || true

if [ ! -e "$home/.ready" ]; then
  echo "compat: an environment with torch $torch (a download of some minutes, once)"
  mkdir -p "$home"
  test -x "$venv/python" || "$python" -m venv "$home/venv"
  "$venv/python" -m pip install --quiet --disable-pip-version-check "torch==$torch" torchvision matplotlib \
    $(grep -E '^(numpy|setuptools|wheel|ninja|pytest|scikit-learn)==' "$root/requirements/dev.txt")
  command -v cmake >/dev/null || "$venv/python" -m pip install --quiet cmake==3.31.6
  touch "$home/.ready"
fi

echo "compat: building tilewright, CPU only (log: $home/build.log)"
export PATH="$venv:$PATH" TILEWRIGHT_CMAKE_ARGS="-DTILEWRIGHT_CUDA=OFF ${TILEWRIGHT_CMAKE_ARGS:-}"
"$venv/python" -m pip install --verbose --disable-pip-version-check --no-build-isolation --no-deps \
  --force-reinstall "$root" >"$home/build.log" 2>&1 || {
  tail -n 60 "$home/build.log"
  exit 1
}

cd "$root" # the package comes from the environment: nothing of the source tree is on the path
"$venv/python" -m tilewright info | sed -n 1,4p
TILEWRIGHT_DEVICE=cpu "$venv/python" -m pytest -q -m smoke -p no:cacheprovider
