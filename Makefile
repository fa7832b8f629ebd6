# Two commands for a newcomer: `make demo` and `make test`. Both set everything up in a virtual environment first.
# PYTHON chooses the interpreter (3.10 to 3.13); VENV the folder; JOBS how many tests run at a time.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
  $$p -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
DEMO_VENV ?= .venv-demo
JOBS ?= 2
PIP_FLAGS ?= --quiet --disable-pip-version-check --no-compile

# Many tests start programs of their own: an import of torch without its byte code takes 10 s longer.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test style types pytest check bench plugin-check gpu-test clean

demo: $(DEMO_VENV)/ready  ## segment a drive into out/demo.mp4 (no torch is installed)
	$(DEMO_VENV)/bin/edgeseg demo -o out/demo.mp4

test: style  ## everything CI runs: style, types, tests; types are checked beside the tests
	$(MAKE) -j2 types pytest

check: style types  ## style and types only

style: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

pytest: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

bench: $(VENV)/ready  ## the CPU benchmark against other runtimes, on an otherwise idle machine
	$(VENV)/bin/python -m benchmarks.cpu

# TENSORRT_INCLUDES: folders of TensorRT's headers with colons between them; without it, the system's.
plugin-check: $(VENV)/ready  ## the TensorRT plugin for every GPU this nvcc knows, against each of those headers
	EDGESEG_PLUGIN_ARCHS=all $(if $(TENSORRT_INCLUDES),EDGESEG_TENSORRT_INCLUDES=$(TENSORRT_INCLUDES)) \
	  $(VENV)/bin/python -m pytest tests/backends/tensorrt/plugin

# TensorRT comes from PyPI on a PC. A Jetson has its own: `. .venv-jetson/bin/activate; python -m benchmarks.gpu` there.
gpu-test: $(VENV)/ready  ## on a CUDA device: the plugin, engines and their speed; writes benchmarks/results/gpu-NAME.json
	$(VENV)/bin/pip install $(PIP_FLAGS) -e '.[tensorrt]'
	$(VENV)/bin/python -m benchmarks.gpu $(if $(DATA),--data $(DATA))

# The environment is complete when the file `ready` is newer than pyproject.toml.
$(VENV)/ready: pyproject.toml
	$(call make_venv,$(VENV))
	$(VENV)/bin/pip install $(PIP_FLAGS) -e '.[dev]'
	touch $@

$(DEMO_VENV)/ready: pyproject.toml
	$(call make_venv,$(DEMO_VENV))
	$(DEMO_VENV)/bin/pip install $(PIP_FLAGS) -e .
	touch $@

define make_venv
	@test -n "$(PYTHON)" || { echo "edgeseg needs Python 3.10 to 3.13; none found. Give one: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(1)
endef

clean:
	rm -rf $(VENV) $(DEMO_VENV) out build dist
