r"""A service on asyncio: python async_service.py PACKAGE [PORT]. A line in is a prompt.

The answer comes back over the same connection as it becomes final, and an empty line ends it:

    printf 'Sam had 27 balls, bought 9 and lost 7. How many are left?\n' | nc 127.0.0.1 9000

Requests of all connections are decoded together, without a thread for each. A client that leaves
ends its request. For HTTP, limits and keys there is `fastdllm serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import fastdllm

CONFIG = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)


async def answer(
    llm: fastdllm.LLM, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one connection."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            try:
                async for piece in llm.astream(line.decode().strip(), CONFIG):
                    writer.write(piece.encode())
                    await writer.drain()  # raises where the client has gone
            except (fastdllm.Error, UnicodeDecodeError) as problem:
                writer.write(f"error: {problem}".encode())
            writer.write(b"\n\n")
            await writer.drain()
    writer.close()


async def serve(package: str, port: int) -> None:
    """Listen until the process is stopped. Port 0: a free one."""
    llm = fastdllm.LLM(package, max_batch=8, max_waiting=64)
    server = await asyncio.start_server(
        lambda reader, writer: answer(llm, reader, writer), "127.0.0.1", port
    )
    print("listening at port", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python async_service.py PACKAGE [PORT]")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 9000))
