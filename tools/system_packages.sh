#!/bin/sh
# Installs what the build and the tests need of the system, where that is allowed; says what to install
# where it is not. Only a compiler is indispensable: without the others, parts are left out.
set -u
python=${1:-python3}

missing=""
need() { # test, package
  eval "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need 'command -v g++' g++
need 'command -v cmake' cmake
need 'command -v git' git
need "$python -c 'import ensurepip'" python3-venv
need "$python -c 'import os, sysconfig; os.stat(sysconfig.get_path(\"include\") + \"/Python.h\")'" python3-dev
need 'test -f /usr/include/gtest/gtest.h' libgtest-dev
need 'test -f /usr/include/boost/context/detail/fcontext.hpp' libboost-context-dev
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "tilewright: please install (by their Debian names):$missing"
elif [ "$(id -u)" = 0 ]; then
  echo "tilewright: installing$missing"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
elif sudo -n true 2>/dev/null; then
  echo "tilewright: installing$missing"
  sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "tilewright: please install:  sudo apt-get install$missing"
fi
command -v g++ >/dev/null || {
  echo "tilewright: cannot build without g++" >&2
  exit 1
}
