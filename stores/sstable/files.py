"""The files below a folder: of this machine, or of a store that Beam's file systems open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from apache_beam.io.filesystems import FileSystems

from group_scores.stores.errors import AddressError, GroupScoresError

T = TypeVar("T")
_CHUNK_BYTES = 1 << 20


class Files(Protocol):
    """What is below a folder; names are relative to it, with `/`."""

    def names(self) -> Sequence[str]:
        """Return the names of all files. Raises AddressError where there is no such folder."""

    def read(self, name: str) -> bytes:
        """Return what a small file holds; raises AddressError."""

    def local(self, folder: str, copies: Path, stop: threading.Event) -> Path:
        """Return a folder below this one as one of this machine, copied below `copies` if need be.

        Raises AddressError, or GroupScoresError when `stop` was set meanwhile.
        """


@dataclass(frozen=True)
class LocalFiles:
    """A folder of this machine."""

    name: str

    def names(self) -> Sequence[str]:
        """See `Files`."""
        root = Path(self.name)
        if not root.is_dir():
            raise AddressError(f"no folder {self.name!r}: name the folder of a snapshot")
        return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

    def read(self, name: str) -> bytes:
        """See `Files`."""
        try:
            return (Path(self.name) / name).read_bytes()
        except OSError as error:
            raise AddressError(f"{name} in {self.name} cannot be read: {error.strerror}") from None

    def local(self, folder: str, copies: Path, stop: threading.Event) -> Path:
        """See `Files`: it is there already."""
        return (Path(self.name) / folder).absolute()


@dataclass(frozen=True)
class RemoteFiles:
    """A folder of an object store."""

    name: str

    def names(self) -> Sequence[str]:
        """See `Files`."""
        root = self._root
        (match,) = self._try(lambda: FileSystems.match([f"{root}**"]))
        names = [file.path.removeprefix(root) for file in match.metadata_list]
        if not names:
            raise AddressError(f"no files below {self.name!r}: name the folder of a snapshot")
        return names

    def read(self, name: str) -> bytes:
        """See `Files`."""

        def read() -> bytes:
            with self._open(name) as source:
                return bytes(source.read())

        return self._try(read)

    def local(self, folder: str, copies: Path, stop: threading.Event) -> Path:
        """See `Files`; of the folder itself only, not of those below it."""
        copies.mkdir(parents=True)
        prefix = f"{folder}/" if folder else ""
        for name in self.names():
            inside = name.removeprefix(prefix)
            if name.startswith(prefix) and "/" not in inside:
                self._try(partial(self._copy, name, copies / inside, stop))
        return copies

    def _copy(self, name: str, to: Path, stop: threading.Event) -> None:
        with self._open(name) as source, to.open("wb") as sink:
            while chunk := source.read(_CHUNK_BYTES):
                sink.write(chunk)
                if stop.is_set():
                    raise GroupScoresError(f"the copy of {self.name} was given up")

    def _open(self, name: str) -> Any:
        return FileSystems.open(f"{self._root}{name}", mime_type="application/octet-stream")

    def _try(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except GroupScoresError:
            raise
        except Exception as error:  # each file system has its own kinds
            raise AddressError(f"{self.name} cannot be read: {error}") from None

    @property
    def _root(self) -> str:
        return self.name.rstrip("/") + "/"


def files_of(name: str) -> Files:
    """Return the files of a folder by its name; raises AddressError where nothing opens it."""
    return RemoteFiles(name) if "://" in name else LocalFiles(name)
