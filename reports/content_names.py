"""The names of assessments from the platform's content service.

It is asked as the platform's own jobs ask it: `GET {base}/content/v3/read/{id}?fields=name`, whose
answer has the name in `result.content.name`. Names are an ornament: whatever the service does, who
asks gets an answer in time, and an id stands where there is no name.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from urllib.parse import quote

import httpx
import msgspec
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from group_scores.reports.names import ContentService, Names, NameSource

_ANSWER_BYTES = 1 << 20
_ID_BYTES = 1_000  # a longer one has no place in an address
_NAME_CHARACTERS = 500
_MOST_KEPT = 100_000
_TRIES = 3
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_AWAY_AFTER = 5  # failures in a row
_AT_A_TIME = 500
_TRANSIENT = (429, 502, 503, 504)
_UNKNOWN = (400, 404, 410, 414)
_log = logging.getLogger(__name__)


class _Content(msgspec.Struct):
    name: str | None = None


class _Result(msgspec.Struct):
    content: _Content


class _Answer(msgspec.Struct):
    result: _Result


class _Refusal(msgspec.Struct, rename="camel"):
    response_code: str


_decode = msgspec.json.Decoder(_Answer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


class _FailedError(Exception):
    """The service did not say what the name is, nor that there is none."""


class _AgainError(_FailedError):
    """It may in a moment."""


class ContentNames:
    """Asks a content service, and remembers what it said: for one event loop.

    `known` are names that it is not asked for. `client` stays its owner's; without one there is one
    of its own.
    """

    def __init__(
        self,
        service: ContentService,
        known: Names = Names(),
        client: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._known = known
        # No proxy of the environment, as for the group service.
        self._own = None if client else httpx.AsyncClient(trust_env=False)
        self._client = client or self._own
        self._clock = clock
        self._free = asyncio.Semaphore(service.at_once)
        self._heard: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._failures = 0
        self._away_until = self._silent_until = -math.inf

    async def names_of(self, contents: Collection[str]) -> Names:
        """Return the names of these assessments, as far as they are known in time; never raises.

        What comes too late is there for the next call. Calls may overlap: each id is asked for
        once.
        """
        now = self._clock()
        missing = {one for one in contents if one not in self._known.by_id and self._old(one, now)}
        for content in missing - self._asking.keys():
            self._asking[content] = task = asyncio.create_task(self._hear(content))
            task.add_done_callback(partial(self._forget, content))
        if missing:
            wait_s = None if math.isinf(self._service.wait_s) else self._service.wait_s
            await asyncio.wait([self._asking[one] for one in missing], timeout=wait_s)
        return Names(dict(self._found(contents)))

    def _forget(self, content: str, _: asyncio.Task[None]) -> None:
        del self._asking[content]

    async def close(self) -> None:
        """Ask no more."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._own:
            await self._own.aclose()

    def _old(self, content: str, now: float) -> bool:
        heard = self._heard.get(content)
        return heard is None or heard[0] + self._service.keep_s <= now

    def _found(self, contents: Collection[str]) -> Iterator[tuple[str, str]]:
        for content in contents:
            name = self._known.name(content)
            if name is None:
                _, name = self._heard.get(content, (0, None))
            if name is not None:
                yield content, name

    async def _hear(self, content: str) -> None:
        """Keep what the service says of one; the name from before where it says nothing."""
        address = _address(self._service.url, content)
        async with self._free:
            if address is not None and self._clock() < self._away_until:
                return
            try:
                name = None if address is None else await self._ask(address)
            except _FailedError as error:
                self._fail(str(error))
                return
        if address is not None:
            self._failures = 0
        self._heard[content] = self._clock(), name
        self._heard.move_to_end(content)
        if len(self._heard) > _MOST_KEPT:
            self._heard.popitem(last=False)

    def _fail(self, why: str) -> None:
        now = self._clock()
        self._failures += 1
        if self._failures >= _AWAY_AFTER:
            self._away_until = now + self._service.away_s
        if now >= self._silent_until:
            self._silent_until = now + self._service.away_s
            _log.warning("ids stand for names of assessments: the content service %s", why)

    async def _ask(self, address: str) -> str | None:
        """Return the name, None where there is none; raises _FailedError."""
        tries = AsyncRetrying(
            retry=retry_if_exception_type(_AgainError),
            wait=wait_random_exponential(_PAUSE_S, _LONGEST_PAUSE_S),
            stop=stop_after_attempt(_TRIES),
            reraise=True,
        )
        try:
            async with asyncio.timeout(self._service.name_s):
                return await tries(self._ask_once, address)
        except TimeoutError:
            raise _FailedError(f"did not answer in {self._service.name_s:g} s") from None

    async def _ask_once(self, address: str) -> str | None:
        assert self._client is not None
        data = bytearray()
        try:
            async with self._client.stream(
                "GET",
                address,
                params={"fields": "name"},
                headers={"accept": "application/json"},
                follow_redirects=False,
                timeout=self._service.name_s,
            ) as answer:
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > _ANSWER_BYTES:
                        raise _FailedError(f"answers with more than {_ANSWER_BYTES:,} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _AgainError(f"is away ({type(error).__name__})") from None
        if answer.status_code in _TRANSIENT:
            raise _AgainError(f"answers {answer.status_code}")
        if answer.status_code in _UNKNOWN and _is_refusal(data):
            return None
        if answer.status_code != httpx.codes.OK:
            raise _FailedError(f"answers {answer.status_code}")
        try:
            return _tidy(_decode(data).result.content.name)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise _FailedError("answers what is no content") from None


class NamesNow:
    """Gives names to what has no event loop, one thread at a time; a `with` block closes it."""

    def __init__(self, source: NameSource) -> None:
        self._known = source.known
        self._runner = asyncio.Runner()
        self._names = self._runner.run(_opened(source)) if source.service else None

    def __enter__(self) -> NamesNow:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def names_of(
        self, contents: Collection[str], tell: Callable[[int], None] = lambda _: None
    ) -> Names:
        """Return the names of these assessments, as `ContentNames` does.

        `tell` is called from time to time with how many of them are done.
        """
        if self._names is None:
            return self._known
        found: dict[str, str] = {}
        done = 0
        left = iter(contents)
        while some := tuple(islice(left, _AT_A_TIME)):  # `batched` comes with Python 3.12
            found |= self._runner.run(self._names.names_of(some)).by_id
            done += len(some)
            tell(done)
        return Names(found)

    def close(self) -> None:
        """Release the connections."""
        if self._names is not None:
            self._runner.run(self._names.close())
        self._runner.close()


async def _opened(source: NameSource) -> ContentNames:
    assert source.service is not None
    return ContentNames(source.service, source.known)


def _address(url: str, content: str) -> str | None:
    """Return where to ask for an id, None for one that no content has."""
    try:
        data = content.encode()
    except UnicodeEncodeError:
        return None
    if not 0 < len(data) <= _ID_BYTES or content in (".", ".."):  # a path that leads elsewhere
        return None
    return f"{url}/{quote(data, safe='')}"


def _is_refusal(data: bytearray) -> bool:
    """Tell whether the service itself says that it has no such content, and not what is before it.

    Whatever answers at a wrong address says 404 too.
    """
    try:
        _decode_refusal(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _tidy(name: str | None) -> str | None:
    """Return a name in one line, not without end; None for an empty one."""
    words = " ".join((name or "").split())
    if len(words) > _NAME_CHARACTERS:
        words = f"{words[: _NAME_CHARACTERS - 1]}…"
    return words or None
