"""Node and the packages of npm that a test runs in it, pinned by a lock file beside the test.

They lie in the cache of the jars, a folder for each state of a lock file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from group_scores.stores import java as product
from tests.servers.process import ServerError

PORTAL = Path(__file__).parents[1] / "portal"
_LEAST = 18  # the first that has `fetch`
_REMEDY = "install it (Debian 13 and later: apt-get install nodejs npm) and try again"


def node() -> str:
    """Return a Node that is new enough. Raises ServerError when there is none."""
    found = _program("node")
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
    version = re.match(r"v(\d+)\.", said)
    if not version or int(version[1]) < _LEAST:
        raise ServerError(f"{found} is {said or 'no Node'}, and {_LEAST} is needed: {_REMEDY}")
    return found


def node_modules(packages: Path) -> Path:
    """Return the folder of the packages. Raises ServerError when they were not fetched."""
    folder = _folder(packages)
    if not folder.is_dir():
        raise ServerError(
            f"the packages of {packages.name} are not in {folder}: run `make servers`"
        )
    return folder / "node_modules"


def fetch(packages: Path) -> None:
    """Install what the lock file names into the cache, once."""
    target = _folder(packages)
    if not target.is_dir():
        print(
            f"Fetching the packages of {packages.name} into {target} (some 60 MB, once)", flush=True
        )
        product.whole(target, lambda folder: install(packages, folder))


def install(packages: Path, folder: Path) -> None:
    """Install what the lock file names into a new folder; no package runs a script.

    Raises ServerError.
    """
    node()
    npm = _program("npm")
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(packages / name, folder)
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    done = subprocess.run(
        [npm, "ci", *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise ServerError(f"npm cannot install the packages of {packages.name}:\n{end}")


def _folder(packages: Path) -> Path:
    digest = hashlib.sha256((packages / "package-lock.json").read_bytes()).hexdigest()[:12]
    return product.cache() / f"npm-{packages.name}-{digest}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerError(f"{name} is not on the PATH; Node {_LEAST} or later is needed: {_REMEDY}")
    return found
