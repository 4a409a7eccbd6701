# One verb for each task. Each sets up what it needs, from nothing, and does again only what has changed.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
SECONDS ?= 60
SEED ?= 1
MODES ?=
PROFILE ?= --release

BIN := $(VENV)/bin
CARGO_FLAGS := --workspace
RUST_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
PYTHON_DIRS := $(wildcard python tests benchmarks fuzz examples)

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export CARGO_BUILD_JOBS = $(JOBS)

.PHONY: help demo test test-rust test-python lint lint-rust lint-python format bench bench-linux fuzz fuzz-modes wheel clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo     run a guest that makes both hypercalls, on an Intel and on an AMD host'
	@echo 'make test     all tests, Rust and Python'
	@echo 'make lint     rustfmt, clippy, ruff, mypy --strict'
	@echo 'make format   rewrite the sources as the formatters want them'
	@echo 'make bench    speed, beside QEMU and Unicorn where they are installed'
	@echo 'make bench-linux a Linux boot, beside QEMU where it is installed'
	@echo 'make fuzz     random kernels for SECONDS=$(SECONDS), from SEED=$(SEED)'
	@echo 'make fuzz-modes random code in every mode of the CPU, likewise; PROFILE= for a build with all checks'
	@echo 'make wheel    one abi3 wheel in dist/'
	@echo 'make clean    forget everything that was built'

# pip before 25.1 does not know dependency groups.
$(VENV)/.tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet 'maturin>=1.9.4,<2' --group dev
	touch $@

# The package itself, editable: Python sources are used in place, the native module is rebuilt when Rust changes.
$(VENV)/.installed: $(VENV)/.tools $(RUST_SOURCES) README.md
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop $(PROFILE) --quiet
	touch $@

demo: $(VENV)/.installed
	@PARAVIRT=$(BIN)/paravirt BUILD=build sh examples/demo.sh

test: test-rust test-python

# The native crate is an extension module: its tests are those in Python.
test-rust:
	cargo test $(CARGO_FLAGS) --exclude native

test-python: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: lint-rust lint-python

lint-rust:
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

lint-python: $(VENV)/.installed
	$(BIN)/ruff check $(PYTHON_DIRS)
	$(BIN)/ruff format --check $(PYTHON_DIRS)
	$(BIN)/mypy

format: $(VENV)/.tools
	cargo fmt --all
	$(BIN)/ruff check --fix $(PYTHON_DIRS)
	$(BIN)/ruff format $(PYTHON_DIRS)

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python benchmarks/run.py $(BENCH_FLAGS)
	$(BIN)/python benchmarks/linux_boot.py $(LINUX_BENCH_FLAGS)

# Where there is a Linux kernel and a busybox; see tests/linux_files.py.
bench-linux: $(VENV)/.installed
	$(BIN)/python benchmarks/linux_boot.py $(LINUX_BENCH_FLAGS)

fuzz: $(VENV)/.installed
	$(BIN)/python fuzz/kernels.py --seconds $(SECONDS) --seed $(SEED)

fuzz-modes: $(VENV)/.installed
	$(BIN)/python fuzz/modes.py --seconds $(SECONDS) --seed $(SEED) --modes '$(MODES)'

wheel: $(VENV)/.tools
	$(BIN)/maturin build --release --out dist

clean:
	rm -rf $(VENV) build dist target python/paravirt/_native*.so
