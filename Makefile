# Each target does its own set-up in .venv; nothing else needs to be installed than Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint bench clean starter-data

demo: $(READY)
	$(BIN)/python -m demo

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: $(READY)
	$(BIN)/python -m benchmarks.fit
	$(BIN)/python -m benchmarks.extract
	$(BIN)/python -m benchmarks.prepare

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv out
