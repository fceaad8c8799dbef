"""A file system of Beam's that holds files in memory and tells how often each was opened."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem


class MemoryFiles(FileSystem):  # type: ignore[misc]
    """`memory://NAME/…`, as an object store: no folders, only names with slashes in them."""

    held: ClassVar[dict[str, bytes]] = {}
    opened: ClassVar[Counter[str]] = Counter()
    delay_s: ClassVar[float] = 0.0

    @classmethod
    def scheme(cls) -> str:
        return "memory"

    @classmethod
    def hold(cls, folders: Mapping[str, Path]) -> None:
        """Hold the files of these folders and nothing else."""
        cls.opened.clear()
        cls.held.clear()
        for name, folder in folders.items():
            for path in folder.rglob("*"):
                if path.is_file():
                    key = f"memory://{name}/{path.relative_to(folder).as_posix()}"
                    cls.held[key] = path.read_bytes()

    def _list(self, dir_or_prefix: str) -> Any:
        for name, data in self.held.items():
            if name.startswith(dir_or_prefix):
                yield FileMetadata(name, len(data))

    def open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        if path not in self.held:
            raise BeamIOError(f"no {path}")
        time.sleep(self.delay_s)
        self.opened[path] += 1
        return io.BytesIO(self.held[path])

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def has_dirs(self) -> bool:
        return False

    def exists(self, path: str) -> bool:
        return path in self.held

    def size(self, path: str) -> int:
        return len(self.held[path])

    def _unsupported(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    mkdirs = create = copy = rename = delete = last_updated = checksum = metadata = _unsupported
