"""What the workers of Dataflow can reach: they are other machines than the one that launches."""

from __future__ import annotations

import importlib.util
import posixpath
from collections.abc import Mapping
from urllib.parse import parse_qsl

from group_scores.stores.errors import AddressError

TLS_FOLDER = "/opt/group-scores/tls"
"""Where the image has the files of ca=, cert= and key=."""

SCHEMES: Mapping[str, tuple[str, ...]] = {
    "--source": ("kafka", "cassandra"),
    "--store": ("cassandra",),
    "--dead-letter": ("kafka",),
    "--cert-events": ("kafka",),
    "--content-index": ("redis",),
}
"""What the addresses of an option can be: servers, as a file is on one machine only."""

_FORMS = {
    "kafka": "kafka://HOST:PORT/TOPIC",
    "cassandra": "cassandra://HOST:PORT/KEYSPACE",
    "redis": "redis://HOST:PORT/DB",
}
_FILES = ("ca", "cert", "key")


def check_addresses(addresses: Mapping[str, str | None]) -> None:
    """Raise AddressError for an address, by its option, that the workers would not find."""
    for option, address in addresses.items():
        if address is None:
            continue
        scheme, _, rest = address.partition(":")
        if scheme not in SCHEMES[option]:
            forms = " or ".join(_FORMS[one] for one in SCHEMES[option])
            what = "the source" if option == "--source" else option  # or --from
            raise AddressError(
                f"{what} {address} is not where the workers of Dataflow are; name {forms}"
            )
        for name, path in parse_qsl(rest.partition("?")[2]):
            if name in _FILES and posixpath.dirname(posixpath.normpath(path)) != TLS_FOLDER:
                raise AddressError(
                    f"{name}={path} is a file of this machine, which the workers of Dataflow do "
                    f"not have; put it into the image, and name it {TLS_FOLDER}/FILE"
                )


def check_google() -> None:
    """Raise AddressError where Google's libraries are missing, or who one is for them.

    Their client would ask for a log-in in a browser, and wait for it.
    """
    if importlib.util.find_spec("apitools") is None:
        raise AddressError(
            "--runner DataflowRunner needs Google's libraries: pip install 'group-scores[gcp]'"
        )
    from google import auth

    try:
        auth.default()
    except auth.exceptions.DefaultCredentialsError:
        raise AddressError(
            "no credentials for Google; gcloud auth application-default login, or name a file in "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
