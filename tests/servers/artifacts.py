"""What the servers need from outside: Java, their jars from Maven, Redis from the system.

The jars lie in a cache outside the tree, a folder for each state of a server's pom, and are shared
by every checkout of the machine. `fetch` fills it; the servers only look it up.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.servers.process import ServerError

HERE = Path(__file__).parent
JVMS = Path("/usr/lib/jvm")
JAVA_VERSIONS = range(17, 24)  # Cassandra 5.0: not older, and 24 took the security manager away
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
INSTALL_REDIS = """
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy  # the package is not to start a server of its own
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true
apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends redis-server
if command -v systemctl > /dev/null; then systemctl disable redis-server || true; fi
"""


def cache() -> Path:
    """Return the folder that every checkout shares."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "group-scores" / "servers"


def jar_folder(server: str) -> Path:
    """Return where the jars of `server` lie, there or not: the name follows the pom's text."""
    digest = hashlib.sha256(_pom(server).read_bytes()).hexdigest()[:12]
    return cache() / f"{server}-{digest}"


def jars(server: str) -> Path:
    """Return the folder of the jars. Raises ServerError when they were not fetched."""
    folder = jar_folder(server)
    if not folder.is_dir():
        raise ServerError(f"the {server} jars are not in {folder.parent}: run `make servers`")
    return folder


@functools.cache
def java() -> str:
    """Return a Java that can run all the servers. Raises ServerError when there is none."""
    found: dict[str, int] = {}
    for program in _javas():
        version = _java_version(program)
        if version in JAVA_VERSIONS:
            return program
        found[program] = version
    seen = ", ".join(f"{program} is {version or 'broken'}" for program, version in found.items())
    raise ServerError(
        f"the test servers need Java {JAVA_VERSIONS.start} to {JAVA_VERSIONS.stop - 1}"
        f" ({seen or 'none found'}): install one (Debian: apt-get install default-jre-headless)"
        " or set JAVA_HOME"
    )


def fetch(server: str) -> None:
    """Copy the jars of `server` from Maven into the cache, once; whole or not at all."""
    target = jar_folder(server)
    if target.is_dir():
        return
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerError(
            "the test servers' jars are fetched with Maven, and mvn is not on the PATH:"
            " install it (Debian: apt-get install maven)"
        )
    print(f"Fetching {server} into {target} (some 60 MB, once)", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{server}-", dir=target.parent) as temporary:
        whole = Path(temporary) / "jars"
        options = ["-B", "-q", "-f", str(_pom(server)), COPY, f"-DoutputDirectory={whole}"]
        _run([maven, *options], f"Maven could not fetch the {server} jars")
        if not target.is_dir():  # another checkout may have been faster
            whole.rename(target)


def install_redis() -> None:
    """Have `redis-server` on the PATH, by the system's package when it is not there yet."""
    if shutil.which("redis-server"):
        return
    remedy = "install it (Debian: apt-get install redis-server) and try again"
    if shutil.which("apt-get") is None:
        raise ServerError(f"redis-server is not on the PATH: {remedy}")
    become: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise ServerError(f"redis-server is not there, nor root to install it: {remedy}")
        become = ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    print("Installing redis-server", flush=True)
    _run([*become, "sh", "-ec", INSTALL_REDIS], f"redis-server could not be had: {remedy}")


def main() -> int:
    """Fetch all of it. Returns 1 after one line that says what is missing."""
    try:
        java()
        fetch("cassandra")
        fetch("kafka")
        install_redis()
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _pom(server: str) -> Path:
    return HERE / f"{server}.pom.xml"


def _javas() -> Iterator[str]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield str(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        yield on_path
    for path in sorted(JVMS.glob("*/bin/java")):
        yield str(path)


def _java_version(program: str) -> int:
    try:
        shown = subprocess.run(
            [program, "-version"], capture_output=True, text=True, check=True, timeout=60
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    # `version "17.0.15"`, and `version "1.8.0_402"` before Java 9
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(match[1]) if match else 0


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        command, stdin=None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-20:]), file=sys.stderr)
        raise ServerError(failure)
