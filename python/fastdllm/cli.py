"""The command line: packages are made, asked, measured, served and shown.

Exit codes: 0 success; 1 failure, one line on stderr; 2 wrong usage; 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from fastdllm._core import Error, precisions
from fastdllm.cli_chat import add_chat
from fastdllm.cli_completion import add_completion
from fastdllm.cli_config import add_config, config_of, integer, read_prompt
from fastdllm.cli_eval import add_eval
from fastdllm.cli_serve import add_serve
from fastdllm.cli_trace import add_trace
from fastdllm.cli_tune import add_tune
from fastdllm.output import check_writable, write_whole
from fastdllm.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None = the process's) and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.cmake_dir:
            print(_cmake_dir())
            return 0
        if options.command is None:
            parser.error("a command is needed; --help lists them")
        code: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Error, ImportError, OSError) as problem:
        return _fail(str(problem))
    except Exception as problem:  # ours to mend, but still one line and not a traceback
        return _fail(f"{type(problem).__name__}: {problem}")


def _cmake_dir() -> Path:
    folder = Path(__file__).parent / "lib" / "cmake" / "fastdllm"
    if not (folder / "fastdllmConfig.cmake").is_file():
        raise FileNotFoundError(f"{folder} has no fastdllmConfig.cmake: not installed from a wheel")
    return folder


def _fail(message: str) -> int:
    if sys.stderr is not None:
        print(f"fastdllm: error: {message}", file=sys.stderr)
    return 1


def _threads(text: str) -> int:
    value = integer(text)
    if not 0 <= value <= 256:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected 0 to 256")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastdllm", description="Fast, exact decoding of masked diffusion language models."
    )
    parser.add_argument("--version", action="version", version=f"fastdllm {__version__}")
    parser.add_argument(
        "--cmake-dir",
        action="store_true",
        help="print the folder for CMake's fastdllm_DIR: the C++ library that came in the wheel",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    export = commands.add_parser("export", help="turn a checkpoint folder into a package")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("package", type=Path)
    export.add_argument("--precision", choices=precisions(), default="fp32")
    export.add_argument("--opset", type=int, choices=(20, 23), default=23)
    export.add_argument(
        "--mask-token-id", type=integer, help="where neither config.json nor the tokenizer says"
    )
    export.add_argument("--overwrite", action="store_true", help="replace a package that is there")
    export.set_defaults(run=_export)

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

    generate = _package_command(commands, "generate", "answer prompts")
    generate.add_argument(
        "--prompt",
        action="append",
        help="the question; - (the default) reads standard input; may come again: answered together"
        ", in order, with --json a line each",
    )
    generate.add_argument(
        "--raw", action="store_true", help="take the prompt as it stands, without chat template"
    )
    generate.add_argument(
        "--stream",
        action="store_true",
        help="print text as it becomes final (default on a terminal)",
    )
    generate.add_argument(
        "--stop", action="append", metavar="TEXT", help="end the answer before it; may come again"
    )
    generate.add_argument(
        "--infill",
        metavar="TEXT",
        help="fill the gaps of a text: {4} is one of 4 tokens; --prompt stands before it, if given",
    )
    add_config(generate)
    generate.set_defaults(run=_generate)

    info = commands.add_parser("info", help="show what a package is, or what this build can do")
    info.add_argument("package", type=Path, nargs="?", help="default: this installation")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_info)
    check = _package_command(commands, "check", "check schema, checksums, graph and tokenizer")
    check.set_defaults(run=_check)

    bench = _package_command(commands, "bench", "compare naive, prefix, dual, dual + threshold")
    bench.add_argument("--prompt", help="the question; default: 16 token ids")
    bench.add_argument("--max-new-tokens", type=integer, default=64)
    bench.add_argument("--block-length", type=integer, help="default: the package's, or 32")
    bench.add_argument("--threshold", type=float, default=0.9)
    bench.add_argument("--repeat", type=integer, default=3)
    bench.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw bars, .png or .svg; needs fastdllm[plot]"
    )
    bench.set_defaults(run=_bench)

    add_tune(_package_command(commands, "tune", "find the best rule and cache for prompts"))
    add_serve(commands)
    trace = _package_command(commands, "trace", "show what each pass of an answer did", json=False)
    add_trace(trace)
    add_chat(_package_command(commands, "chat", "talk: with commands and live, or a line a turn"))
    add_completion(commands.add_parser("completion", help="print a shell's completion"), parser)
    add_eval(commands)
    return parser


def _package_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text)
    command.add_argument("package", type=Path)
    command.add_argument("--threads", type=_threads, default=0, help="in one pass; 0 = automatic")
    command.add_argument(
        "--backend",
        choices=("auto", "onnxruntime", "tensorrt"),
        default="auto",
        help="auto (the default): TensorRT on a GPU that there is an engine for, else ONNX Runtime",
    )
    command.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
    if json:
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def _print_json(content: object, indent: int | None = 1) -> None:
    print(json.dumps(content, indent=indent, allow_nan=False))


def _export(options: argparse.Namespace) -> int:
    from fastdllm.check import read_metadata
    from fastdllm.export import export_package

    path = export_package(
        options.checkpoint,
        options.package,
        precision=options.precision,
        opset=options.opset,
        overwrite=options.overwrite,
        mask_token_id=options.mask_token_id,
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
        _print_json(dataclasses.asdict(built) | {"path": str(built.path)})
        return 0
    how = "found, compiled before" if built.cached else "compiled"
    print(
        f"{built.path}: {built.compiler}, {built.target}, {built.bytes / 1e6:.1f} MB,"
        f" {how} in {built.seconds:.1f} s"
    )
    return 0


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _generate(options: argparse.Namespace) -> int:
    from fastdllm.answer import facts_of
    from fastdllm.llm import LLM

    config = config_of(options)
    prompts = options.prompt or ([] if options.infill is not None else ["-"])
    streams = not options.json and (options.stream or _is_terminal(sys.stdout))
    if options.infill is not None and (len(prompts) > 1 or options.stop or options.stream):
        raise Error("--infill takes one --prompt at most, and neither --stop nor --stream")
    if options.stream and len(prompts) > 1:
        raise Error(f"--stream takes one --prompt; found {len(prompts)}")
    llm = LLM(
        options.package, threads=options.threads, backend=options.backend, device=options.device
    )
    prompts = [read_prompt(prompt) for prompt in prompts]
    if options.infill is not None:
        gaps = enumerate(re.split(r"\{(\d+)\}", read_prompt(options.infill)))
        parts = [int(part) if i % 2 else part for i, part in gaps if part]
        answers = [llm.infill(parts, config, prompt=(prompts or [None])[0], raw=options.raw)]
    elif streams and len(prompts) == 1:
        for piece in llm.stream(prompts[0], config, stop=options.stop, raw=options.raw):
            print(piece, end="", flush=True)
        print()
        return 0
    else:
        answers = llm.generate(prompts, config, stop=options.stop, raw=options.raw)
    for number, answer in enumerate(answers):
        if options.json:
            _print_json(facts_of(answer, config), indent=1 if len(answers) == 1 else None)
        else:
            print("\n" * (number > 0) + answer.text)
    return 0


def _show(facts: dict[str, Any]) -> None:
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {value}")


def _info_of_build(options: argparse.Namespace) -> int:
    from fastdllm.capabilities import capabilities

    found = capabilities()
    if options.json:
        _print_json(found.to_dict())
        return 0
    parts = {
        f"{kind} {part.name}": f"{'yes' if part.available else 'no'}: {part.detail}"
        for kind, listed in (("backend", found.backends), ("compiler", found.compilers))
        for part in listed
    }
    _show(
        {
            "fastdllm": found.version,
            "package format": f"up to version {found.package_format}",
            "families": ", ".join(found.families),
            "precisions": ", ".join(found.precisions),
            **parts,
            "exporter": found.exporter.detail,
        }
    )
    return 0


def _info(options: argparse.Namespace) -> int:
    if options.package is None:
        return _info_of_build(options)
    from fastdllm._core import read_package
    from fastdllm.check import describe_chat_format, read_metadata

    read_package(str(options.package))  # refuses what cannot be read
    metadata = read_metadata(options.package)
    tokenizer = metadata.get("tokenizer")
    metadata["bytes"] = sum(entry["bytes"] for entry in metadata["files"].values())
    if options.json:
        _print_json(metadata)
        return 0
    facts: dict[str, Any] = {
        "family": metadata["family"],
        "precision": f"{metadata['precision']} (cache {metadata['graph']['cache_type']})",
        "format": f"version {metadata['format_version']}, opset {metadata['opset']}",
        "exported by": f"fastdllm {metadata.get('fastdllm_version', 'unknown')}",
        "size": f"{metadata['bytes'] / 1e6:.1f} MB",
        "tokenizer": "yes" if tokenizer else "no",
        "chat format": describe_chat_format(tokenizer or {}),
        **metadata["model"],
    }
    _show(facts)
    return 0


def _check(options: argparse.Namespace) -> int:
    from fastdllm.check import check_package

    results = []
    for result in check_package(
        options.package, threads=options.threads, backend=options.backend, device=options.device
    ):
        results.append(result)
        if not options.json:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.detail}")
    if options.json:
        _print_json([dataclasses.asdict(result) for result in results])
    failed = [result.name for result in results if not result.passed]
    if failed:
        print(f"fastdllm: error: {options.package}: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _bench(options: argparse.Namespace) -> int:
    from fastdllm.bench import measure, standard_modes, table
    from fastdllm.engine import Engine
    from fastdllm.llm import LLM

    if options.repeat < 1:
        raise Error(f"repeat is {options.repeat}; expected at least 1")
    if options.plot is not None:
        from fastdllm.bench_plot import SUFFIXES, draw_bench  # says so where matplotlib is missing

        check_writable({"--plot": options.plot})
        if options.plot.suffix.lower() not in SUFFIXES:
            raise Error(f"--plot {options.plot}: expected a name that ends in .png or .svg")
    if options.prompt is not None:
        llm = LLM(
            options.package, threads=options.threads, backend=options.backend, device=options.device
        )
        engine, prompts = llm.engine, [llm.encode(options.prompt)]
    else:
        engine = Engine(
            options.package, threads=options.threads, backend=options.backend, device=options.device
        )
        allowed = [i for i in range(engine.package.vocab_size) if i != engine.package.mask_token_id]
        prompts = [allowed[:16]]
    modes = standard_modes(
        max_new_tokens=options.max_new_tokens,
        block_length=options.block_length,
        threshold=options.threshold,
    )
    results = []
    for mode in modes:
        if _is_terminal(sys.stderr):
            print(f"\rmeasuring {mode.name:30}", end="", file=sys.stderr, flush=True)
        measure(engine, prompts[:1], mode)  # warm up
        results.append(measure(engine, prompts, mode, repeat=options.repeat))
    if _is_terminal(sys.stderr):
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    naive = results[0].tokens_per_second
    block_length = options.block_length or engine.package.block_length or 32
    told = f"{engine.backend}, {options.max_new_tokens} new tokens in blocks of {block_length}"
    if options.plot is not None:
        name = options.package.absolute().name
        write_whole(
            options.plot,
            lambda path: draw_bench(
                results, path, title=name, subtitle=told, repeat=options.repeat
            ),
        )
    if options.json:
        rows = [
            dataclasses.asdict(result)
            | {
                "tokens_per_pass": result.tokens_per_pass,
                "tokens_per_second": result.tokens_per_second,
                "outside_microseconds": result.outside_microseconds,
            }
            for result in results
        ]
        _print_json({"backend": engine.backend, "repeat": options.repeat, "modes": rows})
        return 0
    header = ["mode", "passes", "tokens/pass", "tokens/s", "speed-up", "ms/pass", "outside us/pass"]
    rows_of_text = [header]
    for result in results:
        rows_of_text.append(
            [
                result.name,
                str(result.num_passes // options.repeat),
                f"{result.tokens_per_pass:.1f}",
                f"{result.tokens_per_second:.0f}",
                f"{result.tokens_per_second / naive:.1f}x",
                f"{1e3 * result.seconds / result.num_passes:.2f}",
                f"{result.outside_microseconds:.0f}",
            ]
        )
    print(told)
    print(table(rows_of_text))
    return 0
