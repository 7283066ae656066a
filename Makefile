PYTHON ?= python

.PHONY: install lint format types layers docs gallery test test-quick test-cluster test-cluster-full reproduce ci

install:  ## the package with everything that development needs, editable
	$(PYTHON) -m pip install -e '.[dev]'

lint:  ## style and mistakes
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:  ## rewrite what can be rewritten
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## strict types
	$(PYTHON) -m mypy

layers:  ## imports go down only
	lint-imports

docs:  ## the site, offline and with warnings as errors: build/site/index.html
	$(PYTHON) -m sphinx --fail-on-warning --keep-going --quiet --jobs auto docs build/site

gallery:  ## train what two cores can train and draw docs/gallery; ONLY="digits solids-gan" for some
	$(PYTHON) -m benchmarks.gallery $(if $(ONLY),--only $(ONLY))

test-quick:  ## what takes a minute: nothing that trains whole runs, starts a Ray or faults a network
	$(PYTHON) -m pytest -m quick

test:  ## all tests; GPU tests are skipped where there is none
	$(PYTHON) -m pytest

test-cluster:  ## what takes several Ray nodes, or minutes of faults
	$(PYTHON) -m pytest -m 'cluster and not full' -n 0

test-cluster-full:  ## that, and what takes longer: ray up over SSH, Slurm
	$(PYTHON) -m pytest -m cluster -n 0

reproduce:  ## PRESET=r3gan-cifar10: a script from the data to the published figure, and what a full run needs
	@$(PYTHON) -m imagegen_dist reproduce $(PRESET)

ci:  ## everything above in a fresh environment
	.ci/run
