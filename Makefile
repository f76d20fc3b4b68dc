# make demo    set up, make the demo clip, explore it, say where the outputs are
# make test    set up, run the tests         make lint    ruff and pyright
# make setup   everything a bare Debian/Ubuntu machine with Python >= 3.10 lacks, into .venv
#
# make setup TORCH=cuda           a machine with an NVIDIA GPU (default: cpu)
# make setup PYTHON=python3.12    another interpreter (default: python3)
#
# Other optional parts: .venv/bin/pip install -c constraints-cpu.txt -e '.[rl]' (see pyproject.toml)

PYTHON ?= python3
TORCH ?= $(if $(wildcard .venv/.setup-cuda),cuda,cpu)
OUT ?= outputs/demo
BIN := .venv/bin
STAMP := .venv/.setup-$(TORCH)

.PHONY: setup test lint demo clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints-cpu.txt scripts/setup.sh
	PYTHON=$(PYTHON) TORCH=$(TORCH) scripts/setup.sh

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

demo: setup
	$(BIN)/inspatio-sim demo --out $(OUT)

clean:
	rm -rf .venv build dist outputs *.egg-info
