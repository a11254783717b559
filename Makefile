# Two commands do everything on a fresh machine with python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
BUNDLES ?= bundles

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

# The stamps are rewritten only when the project file changes, so a second run starts at once.
$(VENV)/.base: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.base

$(VENV)/.torch: pyproject.toml $(VENV)/.base
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[torch]'
	@touch $@

.PHONY: demo
demo: $(VENV)/.base ## build and verify a real INT8 bundle from recipes/digits
	@bundle=$$($(BIN)/trtforge build recipes/digits/int8.yaml --out $(BUNDLES)) && \
	echo "$$bundle" && \
	$(BIN)/trtforge verify "$$bundle" --against recipes/digits/model.onnx \
	  --data recipes/digits/test.npz

.PHONY: test
test: $(VENV)/.dev ## run all tests that need no GPU
	$(BIN)/python -m pytest -q -n auto --dist loadfile

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy --strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.gpu: pyproject.toml $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,gpu]'
	@touch $@

.PHONY: test-gpu
test-gpu: $(VENV)/.gpu ## run the tests that need an NVIDIA GPU; without one they fail
	$(BIN)/python -m pytest -q tests/gpu --require-gpu

.PHONY: bench
bench: $(VENV)/.base ## time trtforge beside bare TensorRT-RTX and Polygraphy
	$(BIN)/python benchmarks/build_overhead.py

.PHONY: bench-gpu
bench-gpu: $(VENV)/.gpu ## run and measure engines on this machine's GPU; writes docs/gpu-results.md
	$(BIN)/python benchmarks/gpu.py

PEERS ?= .peers
MODELS ?= models

.PHONY: bench-graph
bench-graph: $(VENV)/.base ## optimize beside onnxslim and others: PEERS=their venv MODELS=folder
	$(BIN)/python benchmarks/graph_cleanup.py --trtforge $(BIN) --peers $(PEERS)/bin \
	  --models $(MODELS) --rounds 3 --tensorrt-rtx

.PHONY: models
models: $(VENV)/.torch ## make the ONNX files of recipes/vision and recipes/nlp (seeded, no download)
	$(BIN)/python recipes/vision/make_model.py
	$(BIN)/python recipes/nlp/make_model.py

.PHONY: clean
clean: ## remove the virtual environment and the bundles made here
	rm -rf $(VENV) $(BUNDLES)
