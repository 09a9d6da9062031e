"""Print the lowest versions that pyproject.toml admits, as pins for pip.

usage: python lowest.py PYPROJECT [EXTRA ...]

torch is left out: of an old release PyPI has a CUDA build of several GB alone, so it stays the one
that the Makefile names.
"""

import re
import sys
import tomllib
from pathlib import Path


def pins(pyproject: Path, extras: list[str]) -> list[str]:
    """Return NAME==VERSION for the project's dependencies and those of some extras."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    found = []
    for requirement in requirements:
        match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\w.]+)", requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} states no lowest version")
        if match[1] != "torch":
            found.append(f"{match[1]}=={match[2]}")
    return found


if __name__ == "__main__":
    print("\n".join(pins(Path(sys.argv[1]), sys.argv[2:])))
