# make run | test | test-slow | bench | bench-peers | lint | build | clean
# Each target first makes .venv and builds what is missing. EMU_DEBUG=1 or EMU_SANITIZE=1 before any of them selects
# another build of the extensions, which lives in build/debug or build/sanitize and leaves the usual one alone.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

# Imports come from that folder, not from the tree, whatever a test's current directory is.
ALONE = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/$(FLAVOUR)/lib

ifneq ($(filter-out 0,$(EMU_SANITIZE)),)
  FLAVOUR := sanitize
  # AddressSanitizer must be the first library of the process, and finds what throws C++ exceptions (matplotlib does) only
  # where libstdc++ is there from the start; Python itself leaks on purpose at exit. A small quarantine of freed memory, since
  # tests ask whether a process grows.
  RUN = env ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16 \
    LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" $(ALONE)
else ifneq ($(filter-out 0,$(EMU_DEBUG)),)
  FLAVOUR := debug
  RUN = env $(ALONE)
else
  FLAVOUR := release
  RUN =
endif
CC ?= cc
export EMU_DEBUG EMU_SANITIZE

# emu/core itself is listed too: adding or deleting a file changes a folder's time.
SOURCES := $(filter-out %/__pycache__ %.cache,setup.py build_support.py pyproject.toml $(wildcard asm/*.py asm/*/*.py asm/*.tbl asm/*.lark emu/_core.p* emu/face/* emu/model_compiler.py emu/models/*.toml \
  emu/core emu/core/*.[ch] emu/core/*.def emu/chips/*.p* bios/* bios/*/* bios/*/*/*))
ifneq ($(FLAVOUR),release)
  SOURCES += $(wildcard emu/*.py emu/*/*.py emu/models/*) # this build has a copy of them
endif
BUILT := build/$(FLAVOUR)/.stamp

.PHONY: run test test-slow bench bench-peers lint build clean

run: build
	@$(RUN) $(BIN)/emu scenarios story --console --keep build/scenarios

test: build
	@$(RUN) $(BIN)/pytest -n auto --dist worksteal $(TESTS)

test-slow: build
	@$(RUN) $(BIN)/pytest -m slow -n auto --dist loadfile $(TESTS)

bench: build .venv/.bench
	@mkdir -p build/bench
	@$(RUN) $(BIN)/pytest bench -m '' --benchmark-only --benchmark-json=build/bench/results.json \
	  --benchmark-columns=min,median,rounds --benchmark-sort=fullname

bench-peers: build .venv/.bench
	@$(RUN) $(BIN)/python -m bench.peers --json build/bench/peers.json

lint: build .venv/.lint
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/cython-lint emu # it calls pycodestyle by name

build: $(BUILT) .venv/.installed

$(BUILT): .venv/.stamp $(SOURCES)
	@mkdir -p $(@D)
	@touch $@.started
ifeq ($(FLAVOUR),release)
	@$(BIN)/python setup.py $(SETUP_FLAGS) build_ext --inplace build_data --inplace
	@$(BIN)/python -m compileall -q asm emu bios # Python would do so at the first start, unless PYTHONDONTWRITEBYTECODE is set
else
	@$(BIN)/python setup.py $(SETUP_FLAGS) build
endif
	@mv $@.started $@

# The console scripts, and the tree on sys.path. pip finds the release build done.
.venv/.installed: .venv/.stamp | $(BUILT)
	@env -u EMU_DEBUG -u EMU_SANITIZE $(PIP) --no-build-isolation --no-deps -e .
	@touch $@

.venv/.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: apt-get install python3' >&2; exit 1; }
	@missing=; command -v $(firstword $(CC)) >/dev/null || missing="$$missing gcc"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing="$$missing python3-dev"; \
	test -z "$$missing" || { echo "Missing to build this: apt-get install$$missing" >&2; exit 1; }
	@test -x $(BIN)/python || { echo 'make .venv'; $(PYTHON) -m venv .venv; }
	@echo 'install into .venv what pyproject.toml asks for'
	@$(PIP) $(call requirements,t["build-system"]["requires"] + t["project"]["dependencies"] + extra["test"])
	@touch $@

.venv/.bench .venv/.lint: .venv/.%: .venv/.stamp
	@$(PIP) $(call requirements,extra["$*"])
	@touch $@

requirements = $$($(BIN)/python -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); \
  extra = t["project"]["optional-dependencies"]; print(*$(1))')

clean:
	rm -rf build dist .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find asm emu bios tests bench -name __pycache__ -prune -exec rm -rf {} +
	find emu -name '*.so' -delete
	rm -f emu/firmware/*.bin emu/firmware/*.json emu/firmware/*.aml emu/models/*.json asm/*.cache
