# make train   install into .venv and train DQN on Pong      ARGS="--env breakout" for more
# make test    install into .venv and run all tests
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
WHAT := dqn

.PHONY: train test check bench tensorboard clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,2s/^# //p' Makefile; echo "make check | bench | tensorboard | clean"

$(READY): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,detection,envs,export,memory,plot,ray,tune,video,web]'
	@touch $@

train: $(READY)
	$(BIN)/python -m experiments dqn $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy rlkit agents envs experiments
	$(BIN)/python -m pytest -m 'not slow and not exhaustive' $(ARGS)

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

bench: .venv/.bench
	$(BIN)/python -m experiments bench $(WHAT) $(ARGS)

tensorboard: $(READY)
	$(BIN)/tensorboard --logdir runs $(ARGS)

clean:
	rm -rf .venv build *.egg-info
