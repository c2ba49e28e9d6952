"""Asks a server at a steady rate, in a process of its own, so that nothing else in the test slows the asking down.

`python -m tests.support.load HOST PORT PATH RATE` asks until its standard input is closed, then prints one JSON object:
what came back and how often, and how long it took in seconds.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys

CONNECTIONS = 50
TIMEOUT_S = 20.0


class Asker:
    """Kept connections to one server, each used by one request at a time; a request is sent once."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._place = host, port
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._free = asyncio.Semaphore(CONNECTIONS)
        self.results: collections.Counter[str] = collections.Counter()

    async def ask(self) -> None:
        """One request and its answer, counted by status or by the kind of failure."""
        async with self._free:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    self.results[await self._exchange()] += 1
            except (OSError, EOFError, ValueError) as error:
                self.results[type(error).__name__] += 1

    async def _exchange(self) -> str:
        while self._idle and self._idle[-1][0].at_eof():
            self._idle.pop()[1].close()
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._place)
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return head[0].split(" ")[1]


async def main(host: str, port: str, path: str, rate: str) -> None:
    """Ask on time: whatever an answer takes, and a stall is caught up, but not a long one."""
    asker, loop = Asker(host, int(port), path), asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    began = due = loop.time()
    running: set[asyncio.Task[None]] = set()
    while not ended.done():
        running.add(task := asyncio.create_task(asker.ask()))
        task.add_done_callback(running.discard)
        due = max(due + 1 / float(rate), loop.time() - 0.5)
        await asyncio.sleep(max(0.0, due - loop.time()))
    took_s = loop.time() - began
    if running:
        await asyncio.wait(running)
    print(json.dumps({"results": asker.results, "took_s": took_s}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
