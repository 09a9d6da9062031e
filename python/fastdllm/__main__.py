"""Runs the command line as `python -m fastdllm`."""

from __future__ import annotations

import sys

from fastdllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
