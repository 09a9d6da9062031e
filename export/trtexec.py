"""Writes a script that builds a package's engine with trtexec, where Python has no TensorRT.

    python -m fastdllm.export.trtexec PACKAGE [--target sm87] [--max-context N] ... > build.sh

The script runs on the machine with the GPU, beside the package's folder. It makes the engine that
`build-engine` would make and the record that the runtime asks for; see PACKAGE.md, "TensorRT
engines".
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastdllm._core import Error, read_package
from fastdllm.check import read_metadata, sha256_of_file
from fastdllm.export.tensorrt import RECORD_VERSION, profiles_for
from fastdllm.export.tensorrt_compiler import Profile, Range

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where JetPack and Debian packages put it

_SCRIPT = """\
#!/bin/sh
# Builds the engine of {package} for {target} with trtexec; run it beside that folder.
set -eu
# Another package has other shapes.
echo "{sha256}  {metadata}" | sha256sum -c -
version=$(dpkg-query -W -f='${{Version}}' libnvinfer-bin | sed 's/-.*//')
if [ -z "$version" ]; then
  echo "the version of TensorRT is not known: is libnvinfer-bin installed?" >&2
  exit 1
fi
trtexec=$(command -v trtexec || echo {trtexec})
engine={engines}/tensorrt-{target}.engine
record=${{engine%.engine}}.json
mkdir -p {engines}
rm -f "$record"
# Strongly typed: the package's precision is the engine's. WORKSPACE_MIB bounds what building takes.
"$trtexec" --onnx={graph} --saveEngine="$engine" \\
  --stronglyTyped --noTF32 --skipInference \\
  ${{WORKSPACE_MIB:+--memPoolSize=workspace:${{WORKSPACE_MIB}}}} \\
{profiles}
cat >"$record" <<END
{{"record_version": {record_version}, "compiler": "TensorRT $version", "target": "{target}",
 "package_sha256": "{sha256}",
 "bytes": $(stat -c %s "$engine")}}
END
"""


def trtexec_script(
    package_dir: str | Path,
    *,
    target: str = "sm87",
    max_context: int | None = None,
    max_rows: int | None = None,
    rows_per_step: int | None = None,
    max_batch: int = 1,
) -> str:
    """Return the script; the limits are those of build_engine(), `target` that of its GPU.

    Errors: PackageError; ExportError when a limit is out of range.
    """
    folder = Path(package_dir)
    read_package(str(folder))  # refuses what cannot be read
    metadata = read_metadata(folder)
    profiles = profiles_for(
        metadata["model"],
        max_context=max_context,
        max_rows=max_rows,
        rows_per_step=rows_per_step,
        max_batch=max_batch,
    )
    name = folder.resolve().name
    lines = [
        f"  --profile={index} \\\n" + _shapes(metadata["model"], profile)
        for index, profile in enumerate(profiles)
    ]
    return _SCRIPT.format(
        package=name,
        target=target,
        trtexec=TRTEXEC,
        engines=shlex.quote(f"{name}.engines"),
        metadata=f"{name}/fastdllm.json",
        sha256=sha256_of_file(folder / "fastdllm.json"),
        graph=shlex.quote(f"{name}/{metadata['graph']['file']}"),
        profiles=" \\\n".join(lines),
        record_version=RECORD_VERSION,
    )


def input_ranges(model: dict[str, Any], profile: Profile) -> dict[str, list[Range]]:
    """Return the ranges of every input's dimensions, PACKAGE.md's; present_length: of its value."""
    sizes = profile.sizes()
    one = Range(1, 1, 1)
    heads, size = model["num_kv_heads"], model["head_dim"]
    past = [sizes["batch"], Range(heads, heads, heads), sizes["cached"], Range(size, size, size)]
    ranges = {
        "input_ids": [sizes["batch"], sizes["rows"]],
        "position_ids": [sizes["batch"], sizes["rows"]],
        "attention_mask": [sizes["batch"], one, sizes["mask_rows"], sizes["attended"]],
        "logit_indices": [sizes["batch"], sizes["wanted"]],
        "present_length": [profile.kept],
    }
    for layer in range(model["num_layers"]):
        ranges[f"past_key_values.{layer}.key"] = past
        ranges[f"past_key_values.{layer}.value"] = past
    return ranges


def _shapes(model: dict[str, Any], profile: Profile) -> str:
    """Write the ranges as trtexec's options, which take a shape tensor's values as its shape."""
    ranges = input_ranges(model, profile)
    options = []
    for bound in Range._fields:
        shapes = [
            f"{name}:{'x'.join(str(getattr(size, bound)) for size in dimensions)}"
            for name, dimensions in ranges.items()
        ]
        options.append(f"  --{bound}Shapes={','.join(shapes)}")
    return " \\\n".join(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the script; the exit code is 1 after one line on stderr when that cannot be."""
    parser = argparse.ArgumentParser(prog="fastdllm.export.trtexec", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--target", default="sm87", help="Jetson Orin: sm87; Thor: sm110")
    parser.add_argument("--max-context", type=int)
    parser.add_argument("--max-rows", type=int)
    parser.add_argument("--rows-per-step", type=int)
    parser.add_argument("--max-batch", type=int, default=1)
    options = vars(parser.parse_args(arguments))
    try:
        print(trtexec_script(options.pop("package"), **options), end="")
    except (Error, OSError) as problem:
        print(f"fastdllm.export.trtexec: error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
