# make demo    set up, make the demo clip, explore it, say where the outputs are
# make test    set up, run the tests         make lint    ruff and pyright
# make train-tiny   train the weights that ship, stage by stage, and put them in their place; run again
#                   after an interruption, it goes on where it was; hours; wants g++ (or SET=compile=false)
# make train-frame-tiny   the same for the frame generator, with the codec that train-tiny has put in its place
# make setup   everything a bare Debian/Ubuntu machine with Python >= 3.10 lacks, into .venv
#
# make setup TORCH=cuda           a machine with an NVIDIA GPU (default: cpu)
# make setup PYTHON=python3.12    another interpreter (default: python3)
#
# make train-tiny RUN=FOLDER TO=FOLDER SET="trainer.max_steps=4 ..."   where it trains, where the weights are
#                   copied to, what is changed in every stage (see inspatio-sim train --help)
#
# Other optional parts: .venv/bin/pip install 'inspatio-sim[view]' (see pyproject.toml)

PYTHON ?= python3
TORCH ?= $(if $(wildcard .venv/.setup-cuda),cuda,cpu)
OUT ?= outputs/demo
BIN := .venv/bin
STAMP := .venv/.setup-$(TORCH)

TRAIN_STAGES := codec/train depth/train star/teacher star/init
FRAME_STAGES := frame/pretrain frame/control frame/distill

.PHONY: setup test lint demo train-tiny train-frame-tiny clean

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

train-tiny: setup
	set -e; for stage in $(TRAIN_STAGES); do \
	  $(BIN)/inspatio-sim train $$stage --config tiny --resume $(if $(RUN),--out $(RUN)) --set compile=true $(SET); \
	done
	$(BIN)/inspatio-sim train star/ship --config tiny $(if $(RUN),--out $(RUN)) $(if $(TO),--to $(TO))

train-frame-tiny: setup
	set -e; for stage in $(FRAME_STAGES); do \
	  $(BIN)/inspatio-sim train $$stage --config tiny --resume $(if $(RUN),--out $(RUN)) --set compile=true $(SET); \
	done
	$(BIN)/inspatio-sim train frame/ship --config tiny $(if $(RUN),--out $(RUN)) $(if $(TO),--to $(TO))

clean:
	rm -rf .venv build install log dist outputs *.egg-info
