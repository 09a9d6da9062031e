"""Checks commit messages: python tools/commit_subject.py FILE, or RANGE such as main..HEAD.

A subject has at most 72 characters, an empty line behind it, and is no merge. FILE is what a
commit-msg hook gets.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAX_SUBJECT = 72


def problems_of(message: str) -> list[str]:
    """Say what is wrong with a message."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject = lines[0] if lines else ""
    found = []
    if not subject.strip():
        found.append("the subject is empty")
    if len(subject) > MAX_SUBJECT:
        found.append(f"the subject has {len(subject)} characters; at most {MAX_SUBJECT}")
    if subject.startswith("Merge "):
        found.append("a merge; rebase instead")
    if len(lines) > 1 and lines[1].strip():
        found.append("no empty line behind the subject")
    return found


def main(what: str) -> int:
    """Check a file's message, or those of a range of commits."""
    if Path(what).is_file():
        messages = [Path(what).read_text("utf-8")]
    else:
        command = ["git", "log", "--format=%B%x00", what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"commit_subject: {what}: {done.stderr.strip()}", file=sys.stderr)
            return 1
        messages = [one.strip() for one in done.stdout.split("\0") if one.strip()]
    status = 0
    for message in messages:
        for problem in problems_of(message):
            print(f"{message.splitlines()[0]!r}: {problem}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/commit_subject.py FILE_OR_RANGE")
    sys.exit(main(sys.argv[1]))
