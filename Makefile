# Two commands do all the set-up on a fresh Debian machine: `make demo` and `make test`.
VENV ?= .venv
PYTHON ?= python3
# What the exporter is tested with. TORCH_INDEX may name a package index with the CPU build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
MODEL := benchmarks/tiny_math/checkpoint
PACKAGE := packages/tiny_math
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
SOURCES := $(shell find cpp bindings export python -type f -not -name '*.md' -not -path '*/__pycache__/*') \
           CMakeLists.txt pyproject.toml

.PHONY: demo test test-cpp test-sanitize test-python lint types bench format system clean
demo: $(PACKAGE)/fastdllm.json
	$(BIN)/python -m fastdllm.demo $(PACKAGE) $(MODEL)/problems.jsonl

test: lint test-cpp test-sanitize test-python types
	@echo "all checks passed"

# --- set-up -----------------------------------------------------------------------------------
# Debian packages that are missing, where this user may install them.
system:
	@missing=""; \
	command -v g++ >/dev/null || missing="$$missing g++"; \
	command -v cmake >/dev/null || missing="$$missing cmake"; \
	command -v ninja >/dev/null || missing="$$missing ninja-build"; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || \
	  missing="$$missing python3-dev"; \
	[ -e /usr/include/gtest/gtest.h ] || missing="$$missing libgtest-dev"; \
	command -v pkg-config >/dev/null || missing="$$missing pkg-config"; \
	[ -e /usr/include/pcre2.h ] || missing="$$missing libpcre2-dev"; \
	[ -e /usr/include/utf8proc.h ] || missing="$$missing libutf8proc-dev"; \
	[ -e /usr/include/httplib.h ] || missing="$$missing libcpp-httplib-dev"; \
	if [ -n "$$missing" ]; then \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  echo "installing:$$missing"; \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

.deps/include/onnxruntime_cxx_api.h: | system
	cpp/cmake/get_headers.sh .deps

$(VENV)/.tools: pyproject.toml | system
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade "pip>=25.1"
	$(PIP) install -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) install -q --group dev
	@touch $@

$(STAMP): $(SOURCES) $(VENV)/.tools .deps/include/onnxruntime_cxx_api.h
	$(PIP) install -q ".[export]"
	@touch $@

# Compiles engines in the tests, without a GPU (148 MB). Where there is no such wheel, they are skipped.
$(VENV)/.tensorrt-rtx: | $(STAMP)
	$(PIP) install -q $$($(BIN)/python -c 'from fastdllm.export.tensorrt_compiler import RTX_WHEELS as w; print(w)') || \
	  echo "TensorRT-RTX cannot be installed here: its tests are skipped"
	@touch $@

$(PACKAGE)/fastdllm.json: $(STAMP) $(MODEL)/model.safetensors
	$(BIN)/fastdllm export --overwrite $(MODEL) $(PACKAGE)

# --- checks -----------------------------------------------------------------------------------
test-cpp: .deps/include/onnxruntime_cxx_api.h $(PACKAGE)/fastdllm.json
	cmake --preset dev
	cmake --build --preset dev
	cmake --build --preset dev --target all_verify_interface_header_sets
	FASTDLLM_TEST_PACKAGE=$(abspath $(PACKAGE)) \
	FASTDLLM_ONNXRUNTIME=$$($(BIN)/python -c 'from fastdllm.engine import find_onnxruntime as f; print(f())') \
	  ctest --preset dev

test-sanitize: .deps/include/onnxruntime_cxx_api.h
	cmake --preset sanitize
	cmake --build --preset sanitize
	ctest --preset sanitize

test-python: $(STAMP) $(VENV)/.tensorrt-rtx
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -co --exclude-standard '*.cpp' '*.hpp' | xargs $(BIN)/clang-format --dry-run -Werror

# Types are checked as installed, where the compiled module's stub is.
types: $(STAMP)
	cd $(VENV) && bin/mypy --config-file $(abspath pyproject.toml) -p fastdllm

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files -co --exclude-standard '*.cpp' '*.hpp' | xargs $(BIN)/clang-format -i

bench: $(PACKAGE)/fastdllm.json
	$(BIN)/python benchmarks/compare_torch.py $(PACKAGE) $(MODEL)

clean:
	rm -rf build packages $(VENV) .deps
