# Everything is installed into .venv from pyproject.toml at the versions of constraints.txt.
PYTHON ?= python3
PYTEST = .venv/bin/python -m pytest -q

.PHONY: demo test test-slow lint types clean

demo: .venv/.installed
	.venv/bin/p3d demo --out runs/demo

# Side by side, and one thread each: tiny networks are no faster with more, and far slower beside other work.
test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(PYTEST) --numprocesses auto --maxprocesses 4 --dist loadfile -m "not slow"

test-slow: .venv/.installed-dev
	$(PYTEST) -m slow

lint: .venv/.installed-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

types: .venv/.installed-dev
	.venv/bin/mypy

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs build dist
