# Needs python3 (3.11 or newer), make and a package registry; everything else comes from uv.lock into .venv.

PYTHON ?= python3
UV_VERSION := 0.13.9
READY := .venv/.ready

# The environment of whoever calls must not send the packages into another virtual environment.
unexport VIRTUAL_ENV UV_PYTHON PYTHONPATH PYTHONHOME
# Without kept bytecode every process of a service, a command or a test compiles all it imports: 4 s instead of 1 s.
unexport PYTHONDONTWRITEBYTECODE
export UV_PROJECT_ENVIRONMENT := .venv

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test quick coverage check gates demo bench drills docs format

help: ## what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## start the service, on a fresh machine too; Ctrl-C stops it, a second run continues with the same data
	@exec .venv/bin/scim-ledger serve

test: $(READY) ## the whole test suite; ARGS=... goes to pytest
	.venv/bin/pytest -n auto --dist worksteal --durations=25 --durations-min=3 $(ARGS)

# Without random examples: what a run covers must not be a matter of luck. And apart from `test`, which tracing would slow down by a third.
coverage: $(READY) ## the pure modules, which the unit tests must cover whole
	HYPOTHESIS_PROFILE=explicit .venv/bin/pytest $(addprefix tests/unit/,client delivery ledger operations proofs scim) -m "not long" -q -n auto --dist worksteal --cov --cov-report=term-missing:skip-covered --cov-fail-under=100

quick: $(READY) ## in a minute: the gates of what changed since origin/main, and the unit tests; ARGS=... goes to pytest
	@.ci/quick $(ARGS)

check: gates test coverage ## everything a change must pass

gates: $(READY) ## the gates that need no database: format, lint, types, import layers, dependencies, lock file
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports
	.venv/bin/deptry .
	cd clients/python && ../../.venv/bin/deptry .
	.venv/bin/python -m uv lock --check --python .venv/bin/python

demo: $(READY) ## an IdP story end to end, narrated, against a service it starts itself
	@.venv/bin/scim-ledger demo

bench: $(READY) ## the figures, measured on this machine
	@.venv/bin/python bench/run.py $(ARGS)

drills: $(READY) ## break everything while everybody works, and audit it; ARGS="--rounds 1000 --seed 7"
	@.venv/bin/python -m tests.drills $(ARGS)

docs: $(READY) ## write the generated parts of docs anew
	.venv/bin/python -m tests.docs.idp
	.venv/bin/python -m tests.docs.permissions
	.venv/bin/python -m tests.docs.deadlines
	.venv/bin/python -m tests.docs.locks
	.venv/bin/python -m tests.docs.error_codes
	.venv/bin/python -m tests.docs.event_types

format: $(READY) ## format the code and mend what the linter can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Touched last: an interrupted set-up is done again. A pinned uv inside .venv makes any uv on PATH irrelevant.
# The python of .venv may be gone after an upgrade or a move, hence the trial; a .venv made by uv has no pip, hence ensurepip.
$(READY): uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed as $(PYTHON); name another one: make PYTHON=python3.12" >&2; exit 1; }
	@.venv/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	.venv/bin/python -m uv sync --frozen --compile-bytecode --python .venv/bin/python
	@touch $@
