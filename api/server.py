"""Run the server: open what it reads, listen, and end in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import resources

import httpx
import uvicorn
from starlette.types import ASGIApp

from group_scores.api.app import Parts, make_app
from group_scores.api.frame import access
from group_scores.api.groups import open_groups
from group_scores.api.keys import KeyRing, key_loader
from group_scores.api.metrics import Metrics
from group_scores.api.names import KnownNames, NameLookup
from group_scores.api.row_cache import OwnCache, RowCache, SharedCache
from group_scores.api.rows import GroupRows
from group_scores.api.settings import SAMPLE, SAMPLE_PAGE, Settings
from group_scores.api.threads import Threads
from group_scores.api.tokens import Tokens
from group_scores.reports.content_names import ContentNames
from group_scores.reports.names import ContentService, Names, read_names
from group_scores.stores import AddressError, Store, StoreConfig, open_store

FINISH_S = 20
"""How long what is in flight has, once the process is told to end."""
_KEEP_ALIVE_S = 75  # longer than a gateway keeps one, or it meets a closed connection
_BACKLOG = 2048


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until the process is told to end, and finish what is in flight first.

    `tell` gets what an operator reads at the start and at the end. Raises AddressError, or
    ServiceUnavailableError where what is read does not answer at the start.
    """
    settings.check()
    access.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log who asks for which group
    with contextlib.closing(_listen(settings)) as listener:
        asyncio.run(_serve(settings, listener, tell))


async def _serve(settings: Settings, listener: socket.socket, tell: Callable[[str], None]) -> None:
    async with opened(settings) as app:
        if not settings.has_keys:
            tell(
                "no --jwks and no --public-keys: everybody on this machine may read every group, "
                "without a token"
            )
        url = _url(listener)
        if settings.groups == SAMPLE:
            tell(f"the page of the sample group: {url}{SAMPLE_PAGE}")
        tell(f"serving on {url} (Ctrl-C ends it)")
        await _Server(_config(app)).serve([listener])
    tell("ended, with every request answered")


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[ASGIApp]:
    """Open what the server reads for the length of a `with` block; raises as `serve` does."""
    async with contextlib.AsyncExitStack() as stack:
        metrics = Metrics()
        store_threads = Threads(settings.threads, settings.store_s, metrics)
        group_threads = Threads(settings.threads, settings.store_s, metrics)
        stack.callback(store_threads.close)
        stack.callback(group_threads.close)
        # No proxy of the environment gets to see the callers' tokens.
        client = await stack.enter_async_context(
            httpx.AsyncClient(trust_env=False, timeout=settings.group_service_timeout_s)
        )
        tokens = None
        if settings.has_keys:
            ring = KeyRing(key_loader(settings, client))
            await ring.start()
            tokens = Tokens(ring, settings.issuer, settings.audience)
        groups = open_groups(settings, client, group_threads)
        stack.push_async_callback(groups.close)
        store = open_store(StoreConfig(settings.store))
        stack.callback(store.close)
        cache = await _cache(settings, store, metrics)
        if cache:
            stack.push_async_callback(cache.close)
        rows = GroupRows(store, store_threads, cache)
        names: NameLookup = KnownNames(_names(settings))
        if settings.content_service:
            where = ContentService.for_server(settings.content_service)
            asked = ContentNames(where, _names(settings), client)
            stack.push_async_callback(asked.close)
            names = asked
        yield make_app(Parts(settings, groups, rows, tokens, metrics, names))


async def _cache(settings: Settings, store: Store, metrics: Metrics) -> RowCache | None:
    if not settings.cache:
        return OwnCache(settings.cache_s) if settings.cache_s else None
    # A file is known by its machine and its place: it has no name of its own.
    identity = store.cluster or f"{socket.gethostname()}:{os.getcwd()}:{settings.store}"
    cache = SharedCache(settings.cache, identity, settings.cache_s, metrics)
    try:
        await cache.check()
    except AddressError:
        await cache.close()
        raise
    return cache


def _names(settings: Settings) -> Names:
    if settings.names is None and not settings.content_service and settings.groups == SAMPLE:
        with resources.as_file(resources.files(__package__) / "samples" / "names.json") as path:
            return read_names(str(path))
    return read_names(settings.names) if settings.names else Names()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # it limits the headers, which the faster parser does not
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=FINISH_S,
    )


class _Server(uvicorn.Server):
    """Ends on a signal, and says so by returning: an end in order is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn, which would send the signal to the process once more at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.host_and_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(
            f"--listen {settings.listen}: nothing can listen there ({error.strerror}); is the port "
            "free, and the address this machine's?"
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
