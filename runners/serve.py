"""The `serve` command's options, and the server that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from group_scores.runners import screen
from group_scores.runners.command import SECONDS
from group_scores.runners.run_options import CONTENT_SERVICE, STORE_FORMS, check_exists
from group_scores.stores import AddressError

_LISTEN = "127.0.0.1:8000"
_OPTIONS = (
    click.option("--store", metavar="ADDRESS", help=f"Where the scores are: {STORE_FORMS}"),
    click.option(
        "--groups",
        metavar="ADDRESS",
        help="Who is in a group: http(s)://BASE of the group service, "
        "cassandra://HOST:PORT/KEYSPACE, a .json file, or 'sample'.",
    ),
    click.option(
        "--listen",
        metavar="HOST:PORT",
        default=_LISTEN,
        show_default=True,
        help="Without keys a loopback address only.",
    ),
    click.option("--jwks", metavar="FILE|URL", help="The keys that tokens are verified with."),
    click.option(
        "--public-keys",
        metavar="DIR",
        help="The same as PEM files; a file's name is the key's id.",
    ),
    click.option("--issuer", metavar="TEXT", help="What 'iss' of a token must be."),
    click.option("--audience", metavar="TEXT", help="What 'aud' of a token must hold."),
    click.option(
        "--cache-s",
        type=SECONDS,
        default=0,
        show_default=True,
        help="How long what was read of a group's rows may be used again.",
    ),
    click.option(
        "--names",
        metavar="FILE",
        help="Names of assessments for the page: a .json object, or a .csv of `id,name`.",
    ),
    CONTENT_SERVICE,
    click.option(
        "--cache",
        metavar="ADDRESS",
        help="Where that is kept: redis://HOST:PORT/DB for several servers, else in the process.",
    ),
    click.option(
        "--group-service-timeout-s",
        type=SECONDS,
        default=5,
        show_default=True,
        help="How long the group service is waited for, all tries together.",
    ),
)


def serve_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def sample_url() -> str:
    """Return where the page of the samples is, with `serve` alone."""
    from group_scores.api.settings import SAMPLE_PAGE

    return f"http://{_LISTEN}{SAMPLE_PAGE}"


def run_server(sample_store: str, *, store: str | None, groups: str | None, **options: Any) -> None:
    """Serve until the process is told to end; raises as `api.server.serve` does.

    `sample_store` is where `run` puts the sample events, whose group comes with the package.
    """
    # Imported here: what serves is not needed by the other commands.
    from group_scores.api import Settings
    from group_scores.api.server import serve

    if store is None and groups is not None:
        raise AddressError("--groups without --store: give both, or neither for the samples")
    store = store or sample_store
    if groups is None:
        if store != sample_store:
            raise AddressError("--store without --groups: say who is in a group; see --help")
        groups = "sample"
    if not options["group_service_timeout_s"]:
        raise AddressError("--group-service-timeout-s 0: no answer comes so soon; give more")
    settings = Settings(store=store, groups=groups, **options)
    settings.check()
    check_exists(store)
    serve(settings, screen.tell)
