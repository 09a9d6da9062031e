"""Threads for encoding and rendering, which would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_LARGE = 4096  # characters or ids from which on a text takes the lane of large ones
_THREADS = 2  # of a lane


class Lanes:
    """Two lanes, so that small texts do not wait for large ones; within a lane, first come first.

    A call that is cancelled while it waits does not run; one that runs is not waited for.
    """

    def __init__(self) -> None:
        self._small = ThreadPoolExecutor(_THREADS, "fastdllm-text")
        self._large = ThreadPoolExecutor(_THREADS, "fastdllm-long-text")

    async def run(self, call: Callable[[], T], *, size: int) -> T:
        """Do the call on a thread. size: characters or ids that it has to do with."""
        lane = self._large if size > _LARGE else self._small
        return await asyncio.get_running_loop().run_in_executor(lane, call)
