"""`fastdllm export` and `fastdllm build-engine`."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from pathlib import Path

from fastdllm._core import precisions
from fastdllm.cli.common import print_json, show
from fastdllm.cli.config import integer
from fastdllm.cli.summary import summary


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that turns a checkpoint into a package."""
    export = commands.add_parser("export", help="turn a checkpoint folder into a package")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("package", type=Path)
    export.add_argument("--precision", choices=precisions(), default="fp32")
    export.add_argument("--opset", type=int, choices=(20, 23), default=23)
    export.add_argument(
        "--mask-token-id", type=integer, help="where neither config.json nor the tokenizer says"
    )
    export.add_argument(
        "--eos-token-id",
        type=integer,
        action="append",
        metavar="ID",
        help="what ends an answer, instead of what the checkpoint's files say; may be repeated",
    )
    export.add_argument("--no-text", action="store_true", help="without tokenizer: token ids only")
    export.add_argument(
        "--no-chat", action="store_true", help="without chat template: a base model"
    )
    export.add_argument(
        "--allow-no-eos", action="store_true", help="although nothing says what ends an answer"
    )
    export.add_argument("--overwrite", action="store_true", help="replace a package that is there")
    export.set_defaults(run=_export)


def add_build_engine(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that compiles a package with TensorRT."""
    engine = commands.add_parser("build-engine", help="compile a package with TensorRT")
    engine.add_argument("package", type=Path)
    engine.add_argument(
        "--target",
        default="gpu",
        help="sm86 and its like: TensorRT-RTX, ahead of time; gpu (the default): TensorRT, here",
    )
    engine.add_argument("--output", type=Path, help="folder; default PACKAGE.engines")
    engine.add_argument("--max-context", type=integer, help="default: the model's, at most 4096")
    engine.add_argument("--max-rows", type=integer, help="most rows of a pass")
    engine.add_argument("--rows-per-step", type=integer, help="default: the block length, or 32")
    engine.add_argument("--max-batch", type=integer, default=1)
    engine.add_argument("--json", action="store_true", help="print one JSON object")
    engine.set_defaults(run=_build_engine)


def _export(options: argparse.Namespace) -> int:
    from fastdllm.check import read_metadata
    from fastdllm.export import ExportWarning, export_package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExportWarning)  # the summary has them
        path = export_package(
            options.checkpoint,
            options.package,
            precision=options.precision,
            opset=options.opset,
            overwrite=options.overwrite,
            mask_token_id=options.mask_token_id,
            eos_token_ids=options.eos_token_id,
            text=not options.no_text,
            chat=not options.no_chat,
            allow_no_eos=options.allow_no_eos,
        )
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{path}: {options.precision} package, {size / 1e6:.1f} MB")
    metadata = read_metadata(path)
    if metadata["validation"]["compared"] == "twin":
        print("too large to load: a small model of the same structure was compared with torch")
    if (quality := metadata.get("quality")) is not None:
        print(
            f"beside float32, at {quality['positions']} masked positions: "
            f"{quality['agreement']:.1%} the same best token, mean KL {quality['kl']:.2g} nats"
        )
    show(summary(metadata))
    return 0


def _build_engine(options: argparse.Namespace) -> int:
    from fastdllm.export.tensorrt import build_engine

    built = build_engine(
        options.package,
        target=options.target,
        output_dir=options.output,
        max_context=options.max_context,
        max_rows=options.max_rows,
        rows_per_step=options.rows_per_step,
        max_batch=options.max_batch,
    )
    if options.json:
        print_json(dataclasses.asdict(built) | {"path": str(built.path)})
        return 0
    how = "found, compiled before" if built.cached else "compiled"
    print(
        f"{built.path}: {built.compiler}, {built.target}, {built.bytes / 1e6:.1f} MB,"
        f" {how} in {built.seconds:.1f} s"
    )
    return 0
