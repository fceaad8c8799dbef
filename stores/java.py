"""What a program in Java needs from outside: Java itself, and its jars from Maven.

The jars are fetched once, into a cache of the user's that all checkouts share.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from group_scores.stores.errors import GroupScoresError

JVMS = Path("/usr/lib/jvm")
VERSIONS = range(17, 24)  # Cassandra 5.0: not older, and 24 took the security manager away
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


@functools.cache
def program() -> Path:
    """Return a Java that Cassandra 5.0 runs on; raises GroupScoresError."""
    found: dict[Path, int] = {}
    for one in _javas():
        version = _version(one)
        if version in VERSIONS:
            return one
        found[one] = version
    seen = ", ".join(f"{one} is {version or 'broken'}" for one, version in found.items())
    raise GroupScoresError(
        f"Cassandra's classes need Java {VERSIONS.start} to {VERSIONS.stop - 1}"
        f" ({seen or 'none found'}): install one (Debian: apt-get install default-jre-headless)"
        " or set JAVA_HOME"
    )


def cache() -> Path:
    """Return the folder of all that was fetched or compiled, of every checkout of the user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "group-scores" / "jars"


def jar_folder(pom: Path) -> Path:
    """Return where the jars of a pom lie, there or not: the name follows the pom's text."""
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    return cache() / f"{pom.name.partition('.')[0]}-{digest}"


def jars(pom: Path, otherwise: str = "") -> Path:
    """Return the folder of the jars of a pom, fetched at the first call.

    `otherwise` is what helps as well where Maven is missing. Raises GroupScoresError where it is,
    or fails.
    """
    return whole(jar_folder(pom), lambda to: _fetch(pom, to, otherwise))


def whole(target: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder of the cache, once; whole or not at all."""
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            made = Path(temporary) / "made"
            make(made)
            try:
                made.rename(target)
            except OSError:  # another process was faster
                if not target.is_dir():
                    raise
    return target


def run(command: Sequence[str], failure: str) -> None:
    """Run a command; raises GroupScoresError with `failure` and its first word of an error."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        raise GroupScoresError(f"{failure}: {(said or ['no reason given'])[0].strip()}")


def _fetch(pom: Path, target: Path, otherwise: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise GroupScoresError(
            f"the jars of {pom.name} are fetched with Maven, and mvn is not on the PATH: install "
            f"it (Debian: apt-get install maven){otherwise and f', or {otherwise}'}"
        )
    options = ["-B", "-q", "-f", str(pom), COPY, f"-DoutputDirectory={target}"]
    run([maven, *options], f"Maven could not fetch the jars of {pom.name}")


def _javas() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve()
    yield from sorted(JVMS.glob("*/bin/java"))


def _version(program: Path) -> int:
    try:
        command = [str(program), "-version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(match[1]) if match else 0
