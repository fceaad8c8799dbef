"""Passwords out of Secret Manager, for the launcher and the workers: a job has no environment.

The image says where they are, as `KAFKA_PASSWORD_SECRET=projects/P/secrets/S`, and holds none.
They are read with the machine's own service account when the container starts, and are in its
environment from there on: neither in an option of the job nor in its graph.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import urllib.request
from collections.abc import Mapping
from typing import Any

from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError

PASSWORDS = ("KAFKA_PASSWORD", "CASSANDRA_PASSWORD", "REDIS_PASSWORD")
SUFFIX = "_SECRET"
_NAME = re.compile(r"(projects/[^/]+/secrets/[^/]+)(/versions/[^/]+)?")
_TOKEN = "computeMetadata/v1/instance/service-accounts/default/token"
_MANAGER = "https://secretmanager.googleapis.com"
_TIMEOUT_S = 20.0


def passwords(environment: Mapping[str, str], manager: str = _MANAGER) -> dict[str, str]:
    """Return the passwords that the environment names and does not have.

    `manager` is where Secret Manager answers. Raises AddressError for a name that cannot be one,
    ServiceUnavailableError for a secret that cannot be read.
    """
    wanted = {
        name: environment[name + SUFFIX]
        for name in PASSWORDS
        if environment.get(name + SUFFIX) and not environment.get(name)
    }
    for name, secret in wanted.items():
        if not _NAME.fullmatch(secret):
            raise AddressError(
                f"{name}{SUFFIX}={secret} names no secret; write projects/PROJECT/secrets/SECRET, "
                "with /versions/N where it is not the latest"
            )
    if not wanted:
        return {}
    # The variable is that of Google's own libraries.
    host = environment.get("GCE_METADATA_HOST") or "metadata.google.internal"
    token = _token(f"http://{host}/{_TOKEN}")
    return {name: _secret(name, secret, token, manager) for name, secret in wanted.items()}


def _token(url: str) -> str:
    try:
        return str(_get(url, {"Metadata-Flavor": "Google"})["access_token"])
    except (OSError, ValueError, KeyError) as error:
        raise ServiceUnavailableError(
            f"no token of a service account ({error}); this is for a machine of Google's, and "
            "elsewhere the passwords go into the environment"
        ) from None


def _secret(name: str, secret: str, token: str, manager: str) -> str:
    version = "" if "/versions/" in secret else "/versions/latest"
    url = f"{manager}/v1/{secret}{version}:access"
    try:
        answer = _get(url, {"Authorization": f"Bearer {token}"})
        return base64.b64decode(answer["payload"]["data"]).decode()
    except (OSError, ValueError, KeyError) as error:
        raise ServiceUnavailableError(
            f"{secret} for {name} cannot be read ({error}); the service account needs "
            "roles/secretmanager.secretAccessor on it"
        ) from None


def _get(url: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        return json.load(response)


def load() -> None:
    """Put the passwords into this process's environment; raises as `passwords` does."""
    os.environ.update(passwords(os.environ))


def main(words: list[str]) -> None:
    """Become the program that the words name, with the passwords in its environment."""
    try:
        load()
    except GroupScoresError as error:
        sys.exit(f"group-scores: {error}")
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
