"""Ask a server over HTTP, in a process of its own: `python -m benchmarks.api_load`.

A `Load` comes on stdin, the last line of stdout is the `Answered`. It knows no more of HTTP than
these requests need, so that little of the machine goes to asking.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import msgspec

from benchmarks.worker import ROOT

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Send `count` requests over so many connections, the texts of `requests` in turns.

    With a `rate` each is due at a time of its own, and its latency counts from then, whether there
    was a connection free or not; without, a connection sends the next when it has its answer.
    """

    host: str
    port: int
    requests: list[str]
    count: int
    connections: int
    rate: float = 0


class Answered(msgspec.Struct, frozen=True):
    """How it went: seconds in all, and of each; the bytes of all bodies."""

    seconds: float
    latencies_s: list[float]
    body_bytes: int


def run_load(load: Load) -> Answered:
    """Run it in a new process. Raises RuntimeError with what the process said."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.api_load"],
        cwd=ROOT,
        input=msgspec.json.encode(load),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Answered)


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time on it."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send it; the result is the number of bytes of the body of a 200."""
        self._head = b""
        self._left = -1
        self._length = 0
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(_END)
            if end < 0:
                return
            head = self._head[:end].lower()
            if not head.startswith(b"http/1.1 200 "):
                self._answer.set_exception(RuntimeError(self._head[:500].decode()))
                return
            found = head.partition(_LENGTH)[2].partition(b"\r\n")[0]
            self._left = self._length = int(found)
            data = self._head[end + len(_END) :]
        self._left -= len(data)
        if self._left == 0 and not self._answer.done():
            self._answer.set_result(self._length)

    def connection_lost(self, _: Exception | None) -> None:
        answer = getattr(self, "_answer", None)
        if answer and not answer.done():
            answer.set_exception(RuntimeError("the server hung up"))


async def _run(load: Load) -> Answered:
    loop = asyncio.get_running_loop()
    requests = [text.encode() for text in load.requests]
    numbers = iter(range(load.count))
    latencies: list[float] = []
    length = 0

    async def work(connection: _Connection, start_s: float) -> None:
        nonlocal length
        for number in numbers:
            due_s = time.perf_counter()
            if load.rate:
                due_s = start_s + number / load.rate
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            answered = await connection.ask(requests[number % len(requests)])
            length += answered  # not in one: others add to it while this one waits
            latencies.append(time.perf_counter() - due_s)

    made = [
        await loop.create_connection(_Connection, load.host, load.port)
        for _ in range(load.connections)
    ]
    start_s = time.perf_counter()
    await asyncio.gather(*(work(connection, start_s) for _, connection in made))
    seconds = time.perf_counter() - start_s
    for transport, _ in made:
        transport.close()
    return Answered(seconds, latencies, length)


def main() -> None:
    """Do what stdin says."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    print(msgspec.json.encode(asyncio.run(_run(load))).decode(), flush=True)


if __name__ == "__main__":
    main()
