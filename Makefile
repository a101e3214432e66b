# The commands that the README shows. `make test` and `make demo` need nothing but Python, g++ and a network
# on a fresh machine; what is missing is installed once.
#
#   VENV=.venv    the virtual environment; VENV= (empty) uses the Python at hand, offline
#   TILEWRIGHT_DEVICE=cuda   run the tests and benchmarks on a GPU (with VENV= on a machine that has torch)
#   DATA=...      of `make demo`: a folder of COCO or Pascal VOC data to train on (docs/data.md)
#   DEMO_ARGS=... more arguments for the demo, such as --resume
#   TORCH=2.15.0  of `make compat`: the torch to build against, in an environment of its own
VENV ?= .venv
PYTHON ?= python3
ifneq ($(VENV),)
RUN := $(VENV)/bin/python
ENVIRONMENT := $(VENV)/.ready
export PATH := $(abspath $(VENV))/bin:$(PATH)
else
RUN := $(PYTHON)
ENVIRONMENT :=
export PYTHONPATH := $(CURDIR)/build/python:$(PYTHONPATH)
endif
CMAKE_DIR := build/cmake
INSTALLED := build/.installed$(if $(VENV),,-here)

.PHONY: build test sanitize demo bench compat lint format clean

build: $(ENVIRONMENT) $(INSTALLED)
	@cmake --build $(CMAKE_DIR) --target install -- $(if $(wildcard $(CMAKE_DIR)/build.ninja),--quiet,--silent) \
	  > build/log.txt 2>&1 || { cat build/log.txt; exit 1; }

$(VENV)/.ready: requirements/dev.txt tools/system_packages.sh
	@sh tools/system_packages.sh $(PYTHON)
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@command -v cmake >/dev/null || $(VENV)/bin/python -m pip install --quiet cmake==3.31.6
	@touch $@

# The first time the package is configured, built and put in place; afterwards CMake alone keeps it up to
# date. Without a virtual environment pip is not asked: the environment at hand stays as it is.
$(INSTALLED): setup.py pyproject.toml | $(ENVIRONMENT)
	@echo "building tilewright: a few minutes the first time (build/ keeps what is done)"
	@mkdir -p build/python
	@rm -f build/.installed build/.installed-here
ifneq ($(VENV),)
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
else
	$(RUN) setup.py --quiet build_ext --inplace
	@ln -sfn ../../ops build/python/tilewright
endif
	@touch $@

test: build
	$(RUN) tests/run.py

sanitize: build
	$(RUN) tests/sanitize.py

demo: build
	$(RUN) examples/train_detector.py $(if $(DATA),--data "$(DATA)") $(DEMO_ARGS)

bench: build
	$(RUN) benchmarks/detection.py
	$(RUN) benchmarks/attention.py
	$(RUN) benchmarks/trees.py

compat:
	@test -n "$(TORCH)" || { echo "which torch? For example: make compat TORCH=2.15.0"; exit 2; }
	@sh tools/compat.sh $(TORCH) $(PYTHON)

lint: $(ENVIRONMENT)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(if $(VENV),$(VENV)/bin/)clang-format --dry-run --Werror

format: $(ENVIRONMENT)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(if $(VENV),$(VENV)/bin/)clang-format -i

clean:
	rm -rf build dist demo_output ops/lib ops/include ops/share ops/_C*.so
