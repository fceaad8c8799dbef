"""The `group-scores` command."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import resources
from typing import Any

import click

from group_scores.runners import screen
from group_scores.runners.command import (
    DEBUG,
    NAME,
    SECONDS,
    Number,
    Program,
    set_up_logging,
    write_out,
)
from group_scores.stores import AddressError, Selection, Store, StoreConfig, open_store

SAMPLE_STORE = "sqlite:group-scores.db"
_LATER = {
    "verify": ("batch re-aggregation", "Tell, or repair, what a recomputation would change."),
    "serve": ("the group aggregate API", "Serve the group aggregate API and its page."),
    "report": ("the group aggregate API", "Write the score report."),
}
_STORE = "sqlite:PATH or cassandra://HOST:PORT/KEYSPACE"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=NAME, prog_name=NAME)
def main() -> None:
    """Best assessment scores in group aggregates: from Kafka or files to Cassandra or SQLite.

    Passwords come from the environment: KAFKA_PASSWORD, CASSANDRA_PASSWORD, REDIS_PASSWORD.
    """


def command(**settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand with --debug."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def logging(*args: Any, debug: bool, **kwargs: Any) -> None:
            set_up_logging(debug)
            function(*args, **kwargs)

        for option in getattr(function, "__click_params__", []):
            if isinstance(option, click.Option) and option.metavar == "ADDRESS": ...
        debug = click.option(DEBUG, is_flag=True, help="Log everything; show tracebacks.")
        return main.command(**settings)(debug(logging))

    return wrap
