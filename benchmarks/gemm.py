"""Single matrix products, by every library at hand that may be the fastest at them.

A contender computes the same product with `copies` different second factors, one after another, so
that they come from memory where a model's would, and what a call costs is spread over them.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from passes import Product
from torch.nn.functional import linear

Run = Callable[[], object]
Array = NDArray[np.float32]


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options that the runtime sets; see onnxruntime_session.cpp."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    return options


def contenders(product: Product, copies: int, threads: int) -> dict[str, Run]:
    """Return the libraries' ways to compute a product `copies` times, by name."""
    generator = np.random.default_rng(0)
    outer = (product.heads,) if product.heads > 1 else ()

    def make(*shape: int) -> Array:
        return generator.standard_normal(outer + shape, dtype=np.float32)

    left = make(product.m, product.k)
    if product.weights:
        rights = [make(product.n, product.k) for _ in range(copies)]  # as torch's Linear has them
        return {"onnxruntime": _onnxruntime(left, rights, threads)} | _torch_linear(left, rights)
    # Keys are cached by row and multiplied transposed, values as they are.
    turned = product.name == "scores"
    rights = [
        make(product.n, product.k) if turned else make(product.k, product.n) for _ in range(copies)
    ]
    return {
        "onnxruntime": _onnxruntime(left, rights, threads, constant=False, turned=turned),
        "torch": _torch_batched(left, rights, turned),
    }


def _onnxruntime(
    left: Array, rights: list[Array], threads: int, *, constant: bool = True, turned: bool = True
) -> Run:
    """Multiply in a graph of one node per factor; constant ones are packed when it is loaded.

    Rights are transposed where `turned`: constant ones beforehand, others by the kernel.
    """
    columns = rights[0].shape[-2 if turned else -1]
    made = (*left.shape[:-1], columns)
    fused = turned and not constant
    nodes, inputs, weights, outputs = [], [], [], []
    for index, right in enumerate(rights):
        factor, product = f"factor.{index}", f"product.{index}"
        if fused:
            node = helper.make_node(
                "FusedMatMul", ["left", factor], [product], domain="com.microsoft", transB=1
            )
        else:
            node = helper.make_node("MatMul", ["left", factor], [product])
        nodes.append(node)
        outputs.append(helper.make_tensor_value_info(product, TensorProto.FLOAT, made))
        if constant:
            numbers = right.T.tobytes()
            shape = right.shape[::-1]
            weights.append(helper.make_tensor(factor, TensorProto.FLOAT, shape, numbers, raw=True))
        else:
            inputs.append(helper.make_tensor_value_info(factor, TensorProto.FLOAT, right.shape))
    inputs.append(helper.make_tensor_value_info("left", TensorProto.FLOAT, left.shape))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    bound = {"left": left} | (
        {} if constant else {f"factor.{index}": right for index, right in enumerate(rights)}
    )
    for name, array in bound.items():
        binding.bind_ortvalue_input(name, value(array))
    result = value(np.empty(made, np.float32))  # one for all: a pass's products are soon read
    for index in range(len(rights)):
        binding.bind_ortvalue_output(f"product.{index}", result)
    return lambda: session.run_with_iobinding(binding)


def _torch_linear(left: Array, rights: list[Array]) -> dict[str, Run]:
    """Multiply as torch does by itself, and by oneDNN with weights packed for this many rows."""
    x, weights = torch.from_numpy(left), [torch.from_numpy(right) for right in rights]
    found: dict[str, Run] = {"torch": lambda: [linear(x, weight) for weight in weights]}
    if not torch.backends.mkldnn.is_available():
        return found
    onednn = torch.ops.mkldnn
    try:
        packed = [onednn._reorder_linear_weight(weight, len(x)) for weight in weights]
    except (AttributeError, RuntimeError):  # inner operators of torch, which may change
        return found
    return found | {
        "onednn": lambda: [
            onednn._linear_pointwise(x, weight, None, "none", [], "") for weight in packed
        ]
    }


def _torch_batched(left: Array, rights: list[Array], turned: bool) -> Run:
    x, factors = torch.from_numpy(left), [torch.from_numpy(right) for right in rights]
    if turned:
        factors = [factor.mT for factor in factors]
    out = torch.from_numpy(np.empty((*left.shape[:-1], factors[0].shape[-1]), np.float32))
    return lambda: [torch.matmul(x, factor, out=out) for factor in factors]


def bandwidth(megabytes: int = 512) -> dict[str, float]:
    """Measure gigabytes per second of reading, and of copying (read and written), at best of 5."""
    source = torch.ones(megabytes * 2**20 // 4)
    target = torch.zeros_like(source)
    size = source.nbytes / 1e9
    return {
        "read": size / _best_seconds(source.sum),
        "copy": 2 * size / _best_seconds(lambda: target.copy_(source)),
    }


def _best_seconds(run: Run) -> float:
    run()
    seconds = []
    for _ in range(5):
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return min(seconds)
