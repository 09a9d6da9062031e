"""Runs clang-tidy: python tools/tidy.py [--build FOLDER] [--base COMMIT] [FILE ...].

FOLDER holds compile_commands.json (default: build/dev). Without files: the sources of cpp/ and
bindings/ that it names; with --base, those of them that changed since that commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLANG_TIDY = Path(sys.executable).parent / "clang-tidy"


def sources(build: Path) -> list[str]:
    """Return the project's own sources that are compiled, relative to the repository."""
    commands = json.loads((build / "compile_commands.json").read_text("utf-8"))
    paths = {Path(one["file"]) for one in commands}
    own = (str(path.relative_to(ROOT)) for path in paths if path.is_relative_to(ROOT))
    return sorted(path for path in own if path.startswith(("cpp/", "bindings/")))


def changed(base: str) -> set[str]:
    """Return what differs from a commit."""
    command = ["git", "diff", "--name-only", base, "--"]
    return set(subprocess.check_output(command, cwd=ROOT, text=True).split())


def check(build: Path, path: str) -> str:
    """Return what clang-tidy says of a file; nothing where it is right."""
    # GCC's flags that clang does not know are no finding.
    command = [str(CLANG_TIDY), "-p", str(build), "--quiet", "--extra-arg=-Wno-everything", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode != 0 else ""


def main() -> int:
    """Check files side by side; exit code 1: something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "dev")
    parser.add_argument("--base", help="only what changed since this commit")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if not (options.build / "compile_commands.json").exists():
        print(f"tidy: {options.build} has no compile_commands.json: cmake --preset dev")
        return 1
    files = options.files or sources(options.build)
    if options.base:
        files = sorted(changed(options.base) & set(files))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [text for text in pool.map(lambda path: check(options.build, path), files) if text]
    print("".join(found), end="")
    print(f"clang-tidy: {len(files)} files, {len(found)} with findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
