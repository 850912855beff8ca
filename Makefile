# Two commands on a fresh machine: `make demo` and `make test`. Both make the environment they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .cache/bench
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What the environment is for. On a machine with a GPU it has onnxruntime-gpu in place of onnxruntime, and NVDEC.
# make demo DEVICE=cpu chooses.
ifndef DEVICE
DEVICE := $(shell timeout 20 nvidia-smi -L 2>/dev/null | grep -q '^GPU ' && echo gpu || echo cpu)
endif
DEMO_READY_cpu := $(VENV)/.ready-demo
DEMO_READY_gpu := $(VENV)/.ready-demo-gpu
DEMO_EXTRAS_cpu := demo
DEMO_EXTRAS_gpu := demo-core,gpu
READY_cpu := $(VENV)/.ready
READY_gpu := $(VENV)/.ready-gpu
EXTRAS_cpu := test
EXTRAS_gpu := test-core,gpu
OTHER_cpu := gpu
OTHER_gpu := cpu
SIZE_cpu := 1.5 GB
SIZE_gpu := several GB
ifeq ($(filter cpu gpu,$(DEVICE)),)
$(error DEVICE is '$(DEVICE)', but must be cpu or gpu)
endif
DEMO_READY := $(DEMO_READY_$(DEVICE))
READY := $(READY_$(DEVICE))
# Files that say the environment is for the other device. An older Makefile made the second one alone.
OTHER_READY := $(wildcard $(DEMO_READY_$(OTHER_$(DEVICE))) $(READY_$(OTHER_$(DEVICE))))

# What is made here asks servers on this machine, which a proxy cannot reach.
comma := ,
export no_proxy := $(if $(no_proxy),$(no_proxy)$(comma))localhost,127.0.0.1,::1

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show all targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: env
env: $(READY) ## Create the environment (.venv) that everything runs in; make demo creates the part it needs.

# Debian's Python comes without ensurepip unless python3-venv is there; its pip can fill a bare environment.
define make_environment
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) 2>/dev/null \
		|| { rm -rf $(1); $(PYTHON) -m venv --without-pip $(1) && $(PYTHON) -m pip --python $(1)/bin/python install -q pip; }
endef

# torch goes first and alone, so that nothing that depends on it chooses another build.
# Not Python 3.13: Triton's Python backend needs numpy < 2, and ml-dtypes, which onnx and tritonclient need, wants
# numpy >= 2.1 there.
$(DEMO_READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "the embedded server needs Python 3.11 or 3.12, and $(PYTHON) is another version: make PYTHON=/path/to/python3.12 (the client alone, 'pip install .', runs on 3.11 to 3.13)"; exit 1; }
	@PYTHONPATH=server $(PYTHON) -m clipserve_server.python_stubs
	$(call make_environment,$(VENV))
	$(if $(OTHER_READY),@echo "$(VENV) is for a $(OTHER_$(DEVICE)): changing it for a $(DEVICE)"; \
		$(PIP) uninstall -q -y torch onnxruntime onnxruntime-gpu PyNvVideoCodec && rm -f $(OTHER_READY))
	@echo "installing torch, Triton and other packages into $(VENV) for a $(DEVICE): $(SIZE_$(DEVICE)); this takes minutes, once"
	$(PIP) install -q torch==2.13.0
	$(PIP) install -q -c constraints.txt -e '.[$(DEMO_EXTRAS_$(DEVICE))]'
	$(if $(filter gpu,$(DEVICE)),$(BIN)/python -m clipserve_server.gpu)
	@touch $@

$(READY): $(DEMO_READY)
	@echo "installing what the tests need into $(VENV)"
	$(PIP) install -q -c constraints.txt -e '.[$(EXTRAS_$(DEVICE))]'
	@touch $@

.PHONY: demo
demo: $(DEMO_READY) ## Export models, start Triton, classify real videos over gRPC, stop.
	@$(BIN)/python examples/demo.py

# Three processes on two cores, because tests often wait; a file's tests stay in one, because they share servers.
# When a machine stands still for a second, Triton takes its own processes for dead, and crashes: docs/troubleshooting.md.
# A test in which that happens runs once more.
PARALLEL := -n 3 --dist loadfile --reruns 1 --only-rerun "Stub process .* is not healthy"

.PHONY: test
test: $(READY) check ## Run the checks and the tests, with a browser and a real Triton (ten minutes on two cores).
	$(BIN)/pytest $(PARALLEL) -m "not long"

.PHONY: test-long
test-long: $(READY) ## Run the long tests: every model in every format, endurance, slow footage.
	$(BIN)/pytest $(PARALLEL) -m long

.PHONY: test-all
test-all: $(READY) check ## Run the checks and every test.
	$(BIN)/pytest

.PHONY: test-gpu
test-gpu: $(READY) ## Run the tests that need a GPU; without one they fail (three minutes).
	CLIPSERVE_REQUIRE=gpu,nvdec $(BIN)/pytest -m "gpu or nvdec"

.PHONY: test-compose
test-compose: $(READY) ## Test the compose stack and the pods of the chart in a real Docker engine (15 minutes, needs root).
	CLIPSERVE_COMPOSE=required $(BIN)/pytest tests/deploy/test_compose.py tests/deploy/test_pod.py \
		tests/loadtest/test_in_compose.py

.PHONY: test-bare
test-bare: $(READY) ## Run `make demo` in a Debian that has only the packages of the README (15 minutes, needs root).
	CLIPSERVE_BARE=required $(BIN)/pytest -o faulthandler_timeout=1500 tests/deploy/test_bare_machine.py

.PHONY: check
check: $(READY) ## Check lint, format, types and generated files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clipserve export --check
	$(BIN)/python examples/make_notebook.py --check
	$(BIN)/python docs/make_options.py --check
	$(BIN)/python deploy/helm/make_readme.py --check

.PHONY: format
format: $(READY) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(READY) ## Build the pages of docs/, with an API reference, into site/.
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# An environment of its own for what the benchmarks compare with. torchcodec 0.14 and later load only beside a CUDA build
# of torch, which is what pip installs on Linux by default (5 GB) and which needs no GPU. Beside a CPU build the
# contestants with torchcodec are left out.
$(BENCH)/.ready: pyproject.toml constraints.txt
	$(call make_environment,$(BENCH))
	@echo "installing torch and the programs to compare with into $(BENCH): this takes minutes, once"
	$(BENCH)/bin/python -m pip --disable-pip-version-check install -q torch==2.13.0
	$(BENCH)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt -e '.[bench]'
	@touch $@

.PHONY: bench
bench: $(BENCH)/.ready ## Compare clipserve with the codelab's script, a process pool, a plain ensemble and LitServe (an hour).
	$(BENCH)/bin/python -m benchmarks.side_by_side
	$(BENCH)/bin/python -m benchmarks.side_by_side --model motion

.PHONY: bench-decode
bench-decode: $(BENCH)/.ready ## Compare decoding with torchcodec, decord, OpenCV and PyAV (half an hour).
	$(BENCH)/bin/python -m benchmarks.decode

.PHONY: bench-networks
bench-networks: $(READY) ## Measure the networks alone on this CPU, in each runtime.
	$(BIN)/python -m benchmarks.networks

.PHONY: bench-gpu
bench-gpu: $(READY) ## Measure the networks alone on this machine's GPU, in each runtime and precision (8 minutes).
	$(BIN)/python -m benchmarks.gpu

.PHONY: bench-gpu-service
bench-gpu-service: $(READY) ## Measure the service on this machine's GPU: networks, each decoder, both (6 minutes).
	$(BIN)/python -m benchmarks.gpu_service

.PHONY: bench-service
bench-service: $(READY) ## Measure the time that the service adds to decoding and network.
	$(BIN)/python -m benchmarks.service

.PHONY: bench-stalls
bench-stalls: $(READY) ## Measure how long requests wait for Triton's scheduler, with and without a queue policy (4 minutes).
	$(BIN)/python -m benchmarks.stalls

.PHONY: bench-growth
bench-growth: $(READY) ## Measure cost and latency with growing work, and under overload.
	$(BIN)/python -m benchmarks.growth

.PHONY: bench-client
bench-client: $(READY) ## Measure the processor time of the client.
	$(BIN)/python -m benchmarks.client failures
	$(BIN)/python -m benchmarks.client overhead
	$(BIN)/python -m benchmarks.client parallel

.PHONY: bench-ray
bench-ray: $(READY) ## Compare Ray with classify_many, and two nodes with one (half an hour).
	$(BIN)/python -m benchmarks.ray_data one
	$(BIN)/python -m benchmarks.ray_data two

# make loadtest URL=gpu1:8001 MODEL=x3d_m VIDEOS=videos KEY=admin_key OPTIONS='--concurrency 1,16,64 --latency-limit 300'
.PHONY: loadtest
loadtest: $(READY) ## Test a server under load with perf_analyzer; without URL=... it starts one (four minutes).
	@$(BIN)/clipserve loadtest --out .cache/loadtest --seconds 6 --concurrency 1,2,4 --search-steps 4 $(if $(URL),--url '$(URL)') \
		$(if $(MODEL),--model '$(MODEL)') $(if $(VIDEOS),--videos '$(VIDEOS)') $(if $(KEY),--key-file '$(KEY)') $(OPTIONS)

.PHONY: codelab
codelab: $(READY) ## Run the video classification codelab with clipserve's API.
	@$(BIN)/python examples/codelab.py

.PHONY: fuzz
fuzz: $(READY) ## Send 10,000 damaged files to a real server.
	$(BIN)/python -m benchmarks.endurance fuzz

.PHONY: soak
soak: $(READY) ## Send 10,000 good files to a real server and check its memory.
	$(BIN)/python -m benchmarks.endurance soak

.PHONY: motion
motion: $(READY) ## Train the model motion again (twenty minutes).
	$(BIN)/python -m clipserve_export.motion.train

.PHONY: clean
clean: ## Remove the environment, caches and exported networks.
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache site model_repository/*_net/[1-9]*
