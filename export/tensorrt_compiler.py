"""TensorRT and TensorRT-RTX, the two compilers of engines; see tensorrt.py.

TensorRT compiles on the machine with the GPU. TensorRT-RTX, whose Python API is the same, compiles
ahead of time for a named compute capability, without a GPU. Neither needs torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fastdllm.export.errors import ExportError

RTX_WHEELS = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 tensorrt-rtx-cu13-bindings==1.7.1.116"


class Range(NamedTuple):
    """Least, usual and most of a size; kernels are chosen for the usual one."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Sizes that one optimization profile of an engine takes; dimension names of PACKAGE.md."""

    name: str
    batch: Range
    rows: Range
    cached: Range
    wanted: Range

    @property
    def attended(self) -> Range:
        """Cached and fed rows together."""
        return Range(*(r + c for r, c in zip(self.rows, self.cached, strict=True)))

    @property
    def kept(self) -> Range:
        """Values of present_length: a refresh keeps all but the block, a step nothing."""
        return Range(0, max(0, self.rows.opt - self.wanted.opt), self.attended.max)

    def sizes(self) -> dict[str, Range]:
        """Return the range of every dimension of the graph's inputs that varies."""
        return {
            "batch": self.batch,
            "rows": self.rows,
            "cached": self.cached,
            "wanted": self.wanted,
            "attended": self.attended,
            "mask_rows": Range(1, 1, self.rows.max),
        }


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """A loaded compiler and what it compiles for.

    trt: the module. title: for people. target: compute capability, such as sm86.
    device: name of the GPU of this machine. capability: what to compile for without one.
    """

    trt: Any
    name: str
    title: str
    target: str
    device: str | None = None
    capability: Any = None


def compiler_ahead_of_time(target: str) -> Compiler:
    """Load TensorRT-RTX and find the compute capability that it is to compile for."""
    libraries = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    try:
        if libraries is not None and libraries.origin is not None:
            # This wheel brings the libraries. The bindings look for them by soname, which the
            # loader knows once they are open.
            for name in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
                for file in sorted(Path(libraries.origin).parent.glob(f"{name}.*")):
                    ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
        trt: Any = importlib.import_module("tensorrt_rtx_bindings")
    except (ImportError, OSError) as problem:
        raise ExportError(
            f"target {target} needs TensorRT-RTX: pip install {RTX_WHEELS} ({problem})"
        ) from None
    title = f"TensorRT-RTX {trt.__version__}"
    known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if target.upper() not in known:
        raise ExportError(
            f"target is {target!r}; {title} compiles ahead of time for"
            f" {', '.join(sorted(map(str.lower, known), key=lambda name: int(name[2:])))};"
            " any other GPU takes --target gpu on its own machine"
        )
    return Compiler(
        trt=trt,
        name="tensorrt_rtx",
        title=title,
        target=target.lower(),
        capability=getattr(trt.ComputeCapability, target.upper()),
    )


def compiler_of_this_gpu() -> Compiler:
    """Load TensorRT and ask the driver what GPU is here."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as problem:
        raise ExportError(
            f"target gpu: no GPU driver here ({problem}); on a machine without a GPU name a"
            " compute capability, such as --target sm86"
        ) from None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    label = ctypes.create_string_buffer(256)
    status = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(label, len(label), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # compute capability, major
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # and minor
    )
    if status != 0:
        raise ExportError(f"target gpu: the GPU driver answers with error {status}")
    try:
        trt: Any = importlib.import_module("tensorrt")
    except (ImportError, OSError) as problem:
        raise ExportError(
            f"target gpu needs TensorRT's Python package: pip install tensorrt ({problem})"
        ) from None
    return Compiler(
        trt=trt,
        name="tensorrt",
        title=f"TensorRT {trt.__version__}",
        target=f"sm{major.value}{minor.value}",
        device=label.value.decode("utf-8", "replace"),
    )


def compile_package(
    compiler: Compiler,
    folder: Path,
    metadata: dict[str, Any],
    profiles: tuple[Profile, ...],
    progress: bool | None,
) -> memoryview:
    """Parse the graph and compile it; returns the serialized engine."""
    trt = compiler.trt
    graph = folder / metadata["graph"]["file"]
    log = _log(trt)
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as problem:
        raise ExportError(f"{compiler.title} does not start: {_one_line(log, problem)}") from None
    # Strongly typed: the package's precision is the engine's, tensor by tensor.
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise ExportError(_refusal(compiler, graph, metadata, parser))
    _require_attention_kernel(trt, network, compiler, graph)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 in a package means float32
    if compiler.capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(compiler.capability, 0)
    for profile in profiles:
        config.add_optimization_profile(_optimization_profile(builder, network, profile, graph))
    shown = (sys.stderr is not None and sys.stderr.isatty()) if progress is None else progress
    monitor = _monitor(trt, shown)
    config.progress_monitor = monitor
    with _interrupts_to(monitor):
        engine = builder.build_serialized_network(network, config)
        monitor.close()
    if monitor.interrupted:
        raise KeyboardInterrupt
    if engine is None:
        raise ExportError(
            f"{graph}: {compiler.title} cannot compile it for {compiler.target}:"
            f" {_one_line(log, 'it does not say why')}{_advice('', metadata)}"
        )
    return memoryview(engine)


def _optimization_profile(builder: Any, network: Any, profile: Profile, graph: Path) -> Any:
    """Say the profile's range for every input of the graph; its dimensions have names."""
    made = builder.create_optimization_profile()
    sizes = profile.sizes()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name == "present_length":  # its value is a size
            made.set_shape_input(tensor.name, *([value] for value in profile.kept))
            continue
        ranges = []
        for axis, size in enumerate(tensor.shape):
            name = tensor.get_dimension_name(axis)
            if size == -1 and name not in sizes:
                raise ExportError(
                    f"{graph}: input {tensor.name}: dimension {axis} is {name!r}; expected one of"
                    f" {', '.join(sizes)}"
                )
            ranges.append(sizes[name] if size == -1 else Range(size, size, size))
        made.set_shape(tensor.name, *zip(*ranges, strict=True))
    return made


def _refusal(compiler: Compiler, graph: Path, metadata: dict[str, Any], parser: Any) -> str:
    """Say which node the parser refused first, and what to change."""
    if parser.num_errors == 0:
        return f"{graph}: {compiler.title} cannot parse it"
    error = parser.get_error(0)
    # An importer that gives up half-way names itself, such as importScatterElements, and no node.
    function = error.func().removeprefix("import").removeprefix("check")
    operator = error.node_operator() or function
    node = f" of node {error.node_name()}" if error.node_name() else ""
    more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    reason = error.desc().strip()
    return (
        f"{graph}: {compiler.title} refuses operator {operator}{node}{more}"
        f"{'' if reason in ('', 'false') else ': ' + reason}{_advice(operator, metadata)}"
    )


def _require_attention_kernel(trt: Any, network: Any, compiler: Compiler, graph: Path) -> None:
    """Refuse what the compiler would refuse late and without naming the layer."""
    attention = getattr(trt.LayerType, "ATTENTION_INPUT", None)  # not in TensorRT 10.3
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == attention and layer.get_input(0).dtype == trt.float32:
            raise ExportError(
                f"{graph}: {compiler.title} has no float32 kernel for operator Attention"
                f" (layer {layer.name}); export with --precision fp16, or with --opset 20"
            )


def _advice(operator: str, metadata: dict[str, Any]) -> str:
    if metadata["opset"] > 20 and operator in ("Attention", "RMSNormalization", "RotaryEmbedding"):
        return "; export with --opset 20"
    if operator in ("If", "MultiHeadAttention", "SkipSimplifiedLayerNormalization"):
        return "; export with --precision fp16, or with --opset 20"
    return "" if metadata["precision"] == "fp16" else "; export with --precision fp16"


def _one_line(log: Any, otherwise: object) -> str:
    """Return the first error of the log, which names the cause; later ones follow from it."""
    return " ".join(str(log.errors[0] if log.errors else otherwise).split())


def _log(trt: Any) -> Any:
    """Make a logger that keeps errors and prints nothing."""
    base: Any = trt.ILogger

    class Log(base):  # type: ignore[misc]  # the base is known when the module is loaded
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _monitor(trt: Any, shown: bool) -> Any:
    """Make a progress line on stderr that can end the build after the step at hand.

    Nothing may be raised in here: it would have to pass through the compiler.
    """
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]  # the base is known when the module is loaded
        def __init__(self) -> None:
            base.__init__(self)
            self.interrupted = False
            self.steps: dict[str, int] = {}
            self.shown_at = 0.0

        def interrupt(self) -> None:
            self.interrupted = True

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            if parent is None or steps > 1:  # the many of one step would hide the others
                self._show(phase)

        def phase_finish(self, phase: str) -> None:
            pass

        def step_complete(self, phase: str, step: int) -> bool:
            if time.monotonic() - self.shown_at > 0.1:
                self._show(f"{phase}: {step + 1} of {self.steps.get(phase, 0)}")
            return not self.interrupted

        def close(self) -> None:
            self._show("")

        def _show(self, text: str) -> None:
            self.shown_at = time.monotonic()
            if shown:
                with contextlib.suppress(OSError, ValueError):  # stderr is closed
                    print(f"\r{text[:70]:70}\r", end="", file=sys.stderr, flush=True)

    return Monitor()


@contextlib.contextmanager
def _interrupts_to(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C tell the monitor instead of raising inside the compiler's callbacks."""
    if threading.current_thread() is not threading.main_thread():  # never gets one
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda number, frame: monitor.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous if previous is not None else signal.SIG_DFL)
