"""A server as a child process: started, waited for, paused, killed, and never left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, ClassVar, Self

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)  # below the range that the kernel hands to outgoing connections
LOG_TAIL_LINES = 40
_CHILD = Path(__file__).with_name("child.py")


class ServerError(RuntimeError):
    """A server could not be had, did not come up, or is not in the state that was asked for."""


def free_port(host: str = LOOPBACK) -> int:
    """Return a port of `host` that nothing listens on now.

    It stays free while a server is down, as no outgoing connection is ever given one of `PORTS`,
    and the processes that share the tests of a run have a part of them each.
    """
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(PORTS.start + part, PORTS.stop, parts)
    for port in random.SystemRandom().sample(ports, min(len(ports), 200)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise ServerError(f"no free port on {host} between {PORTS.start} and {PORTS.stop}")


def port_open(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class Server:
    """One server process. A subclass says how it is run and how to tell that it answers.

    `folder` holds its configuration, data and log; ports and data outlive `stop` and `kill`, so
    that `start` brings the same server back. Not for use by two threads at once.
    """

    name: ClassVar[str]
    start_timeout_s: ClassVar[float] = 60.0
    stop_timeout_s: ClassVar[float] = 30.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = LOOPBACK
        self.log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Write what the server reads; called before each start."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """Return the program and its arguments."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether the server answers a client; must not take more than a few seconds."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether the process is there (paused or not)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id. Raises ServerError when the server is not running."""
        if self._process is None or not self.running:
            raise ServerError(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start the process and wait until it answers. Raises ServerError with the log's tail."""
        if self.running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with self.log.open("ab") as log:
            self._process = _spawn(self.command(), self.folder, log)
        _alive.add(self)
        deadline = time.monotonic() + self.start_timeout_s
        while not self.ready():
            if not self.running:
                code = self._process.returncode
                raise ServerError(self._failure(f"stopped at its start with exit code {code}"))
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self._failure(f"was not ready in {self.start_timeout_s:g} s"))
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """Stop it in order (SIGTERM), or by force when that takes longer than `stop_timeout_s`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop and start on the same ports and data."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # its threads stop one after another

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze it for the length of a `with` block, whatever happens inside."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @contextlib.contextmanager
    def down(self, *, kill: bool = False) -> Iterator[None]:
        """Keep it stopped (or killed) for the length of a `with` block, then start it again."""
        if kill:
            self.kill()
        else:
            self.stop()
        try:
            yield
        finally:
            self.start()

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _failure(self, what: str) -> str:
        return f"{self.name} {what}; the end of {self.log}:\n{self.tail()}"

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused process would only see the first at its end
        try:
            process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(self.stop_timeout_s)
        _alive.discard(self)


_alive: set[Server] = set()
_owner = os.getpid()


@atexit.register
def _kill_all() -> None:
    if os.getpid() != _owner:  # a fork of ours that ends: the servers are not its own
        return
    for server in list(_alive):
        server.kill()


def _spawn(command: Sequence[str], folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # The kernel kills the child when the *thread* that made it ends, so one that lives as long
    # as the interpreter makes them all.
    reply: Future[subprocess.Popen[bytes]] = Future()
    _requests().put((reply, command, folder, log))
    return reply.result()


_Request = tuple["Future[subprocess.Popen[bytes]]", Sequence[str], Path, IO[bytes]]
_lock = threading.Lock()
_queue: queue.SimpleQueue[_Request] | None = None


def _requests() -> queue.SimpleQueue[_Request]:
    global _queue
    with _lock:
        if _queue is None:
            _queue = queue.SimpleQueue()
            threading.Thread(target=_launch, args=(_queue,), name="servers", daemon=True).start()
        return _queue


def _launch(requests: queue.SimpleQueue[_Request]) -> None:
    while True:
        reply, command, folder, log = requests.get()
        try:
            reply.set_result(
                subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), *command],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C on the terminal is the test run's, not theirs
                )
            )
        except BaseException as error:
            reply.set_exception(error)
