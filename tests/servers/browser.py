"""A headless Chromium, and the accessibility checker axe: npm packages, pinned by a lock file.

The browser's package is made for machines that have none of a desktop's libraries: what it needs
comes with it, so that a fresh machine needs Node and nothing else. It lies in the cache outside the
tree, as the servers' jars do, a folder for each state of the lock file.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from group_scores.stores import java as product
from tests.servers import node
from tests.servers.process import ServerError

LOCK = Path(__file__).parents[1] / "browser" / "package-lock.json"
OWN = "CHROMIUM"
_ARCHIVES = ("al2023", "fonts", "swiftshader")
_UNPACK = """
const fs = require("fs"), zlib = require("zlib");
const [from, to] = process.argv.slice(1);
for (const name of fs.readdirSync(from)) {
  const packed = fs.readFileSync(`${from}/${name}`);
  fs.writeFileSync(`${to}/${name.replace(/\\.br$/, "")}`, zlib.brotliDecompressSync(packed));
}
"""
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""
ARGUMENTS = (
    "--no-sandbox",  # a test machine runs as root, where Chromium refuses its own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Browser:
    """A program, and the environment that it finds its libraries and fonts by."""

    program: Path
    environment: Mapping[str, str]


def browser() -> Browser:
    """Return the browser: `$CHROMIUM`, or the one that was fetched. Raises ServerError."""
    own = os.environ.get(OWN)
    if own:
        return Browser(Path(own), dict(os.environ))
    folder = _fetched() / "chromium"
    libraries = {"LD_LIBRARY_PATH": f"{folder / 'lib'}:{folder}", "FONTCONFIG_PATH": str(folder)}
    return Browser(folder / "chromium", {**os.environ, **libraries})


def axe() -> str:
    """Return the source of the checker. Raises ServerError when it was not fetched."""
    return (_fetched() / "axe.min.js").read_text("utf-8")


def fetch_browser() -> None:
    """Get both from npm into the cache, once, and see that the browser starts."""
    target = _folder()
    if not target.is_dir():
        print(f"Fetching Chromium into {target} (some 70 MB, once)", flush=True)
        product.whole(target, _fetch)
    here = browser()
    try:
        done = _call([str(here.program), *ARGUMENTS, "--version"], here.environment)
    except OSError as error:
        raise ServerError(f"{here.program} does not run ({error.strerror}): {_REMEDY}") from None
    if done.returncode:
        said = (done.stdout.strip().splitlines() or ["no reason given"])[-1]
        raise ServerError(f"{here.program} does not run ({said}): {_REMEDY}")


_REMEDY = f"install one (Debian: apt-get install chromium) and name it with {OWN}=/usr/bin/chromium"


def _folder() -> Path:
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return product.cache() / f"browser-{digest}"


def _fetched() -> Path:
    folder = _folder()
    if not folder.is_dir():
        raise ServerError(f"Chromium is not in {folder.parent}: run `make servers`")
    return folder


def _fetch(target: Path) -> None:
    if platform.machine() not in ("x86_64", "AMD64") and OWN not in os.environ:
        raise ServerError(f"the browser that is fetched is for x86-64 only: {_REMEDY}")
    chromium = target / "chromium"
    chromium.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name) / "packages"
        node.install(LOCK.parent, work)
        modules = work / "node_modules"
        shutil.copy(modules / "axe-core" / "axe.min.js", target)
        packed = modules / "@sparticuz" / "chromium" / "bin"
        _run(
            [node.node(), "-e", _UNPACK, str(packed), str(chromium)],
            "Chromium could not be unpacked",
        )
    for archive in _ARCHIVES:
        path = chromium / f"{archive}.tar"
        with tarfile.open(path) as opened:
            opened.extractall(chromium, filter="data")
        path.unlink()
    (chromium / "chromium").chmod(0o755)
    (chromium / "fonts.conf").write_text(_FONTS)


def _run(command: Sequence[str], failure: str) -> None:
    done = _call(command, os.environ)
    if done.returncode:
        said = (done.stdout.strip().splitlines() or ["no reason given"])[0]
        raise ServerError(f"{failure}: {said}")


def _call(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
