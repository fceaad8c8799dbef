"""A Redis server that keeps every write in its append-only file."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import redis

from tests.servers.process import Server, ServerError, free_port


class RedisServer(Server):
    """One Redis; `url` is its first database."""

    name = "redis"
    start_timeout_s = 15.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.url = f"redis://{self.host}:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a new client; close it after use."""
        return redis.Redis.from_url(self.url, socket_timeout=2, decode_responses=True)

    def prepare(self) -> None:
        if shutil.which("redis-server") is None:
            raise ServerError("redis-server is not on the PATH: run `make servers`, which gets it")

    def command(self) -> Sequence[str]:
        settings = {
            "port": str(self.port),
            "bind": self.host,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "daemonize": "no",
        }
        return [
            "redis-server",
            *(word for key, value in settings.items() for word in (f"--{key}", value)),
        ]

    def ready(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False
