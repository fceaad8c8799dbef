"""What a report of any kind needs around it: names, tries, standard output."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from typing import Any

from group_scores.reports.names import Names, NameSource
from group_scores.runners import screen
from group_scores.runners.command import write_out
from group_scores.stores import StoreConfig


def names_of(source: NameSource, contents: Collection[str]) -> Names:
    """Return the names of what was gathered; a service is asked once for each."""
    done = 0

    def tell(now: int) -> None:
        nonlocal done
        done = now

    asked = sorted(contents) if source.service else []
    with source.open() as names, screen.progress("names", len(asked), lambda: done):
        return names.names_of(asked, tell)


def retrying(config: StoreConfig) -> Callable[[Callable[[], Any]], Any]:
    """Return how a read is tried again; a file's is not."""
    if config.cluster is None:
        return lambda read: read()
    # Imported here: it loads Beam, which takes seconds that an embedded store need not pay.
    from group_scores.transforms.retry import Retry

    return Retry().call


class StandardOutput(io.RawIOBase):
    """Standard output as a file, with the errors of `write_out`."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        write_out(bytes(data))
        return len(data)
