"""Keep Python's garbage collector off what is there for good.

Beam, the driver and the graph are some hundred thousand objects that stay until the process ends,
and every full collection walks through all of them: a third of the CPU of an event.
"""

from __future__ import annotations

import functools
import gc


@functools.cache
def settle() -> None:
    """Take what a process has loaded by now out of all later collections, once.

    For a worker when it is set up. The collector stays on for what comes afterwards.
    """
    gc.collect()
    gc.freeze()
