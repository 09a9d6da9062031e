"""Compares what compiled C programs rely on with the lists beside this file.

    abi.py [--update] --nm NM LIBRARY... --layout COMMAND...

The lists hold the exported C symbols of each library and the layout of the C structs. A symbol
that is gone, a field that moved or a constant of another value breaks programs; what is new does
not, but is added to the lists on purpose (`cmake --build build/dev --target abi-update`).
Besides the C API, the libraries may export C++ names of fastdllm:: only.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = re.compile(r"(?:(?:vtable|typeinfo|typeinfo name|VTT|guard variable) for )?fastdllm::")


def output_of(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def exported(nm: str, library: str) -> tuple[list[str], list[str]]:
    """The C symbols, and the names that are neither C nor of fastdllm::."""
    lines = output_of(nm, "--dynamic", "--defined-only", "--demangle", library)
    names = [line.split(maxsplit=2)[2] for line in lines]
    c_names = sorted(name for name in names if re.fullmatch(r"\w+", name))
    return c_names, [name for name in names if name not in c_names and not OURS.match(name)]


def gaps(layout: list[str]) -> list[str]:
    """Structs that grow must not end with padding: an older program left anything there."""
    found = []
    for line in layout:
        if size := re.fullmatch(r"(\w+): (\d+) bytes", line):
            name, total = size[1], int(size[2])
            fields = [
                re.fullmatch(rf"{name}\.\w+: at (\d+), (\d+) bytes", other) for other in layout
            ]
            ends = [int(field[1]) + int(field[2]) for field in fields if field]
            if f"{name}.struct_size: at 0, 8 bytes" in layout and max(ends) != total:
                found.append(f"{name} ends with {total - max(ends)} bytes of padding")
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--layout", nargs=argparse.REMAINDER, required=True)
    parser.add_argument("libraries", nargs="*")
    options = parser.parse_args()

    lists = {"layout.txt": output_of(*options.layout)}
    problems = gaps(lists["layout.txt"])
    for library in options.libraries:
        name = re.sub(r"^(?:lib)?(?:abi_)?|\..*$", "", Path(library).name)
        lists[f"{name}.txt"], strangers = exported(options.nm, library)
        problems += [f"{library} exports {stranger}" for stranger in strangers]
    for file, found in lists.items():
        path = HERE / file
        if options.update:
            path.write_text("\n".join(found) + "\n", "utf-8")
        expected = path.read_text("utf-8").splitlines()
        problems += difflib.unified_diff(
            expected, found, f"tests/abi/{file}", "found", lineterm="", n=0
        )
    for problem in problems:
        print(problem)
    if problems:
        print("The ABI is not what the lists say. If it is meant to be: the target abi-update.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
