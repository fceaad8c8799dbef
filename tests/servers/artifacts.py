"""What the servers need from outside: Java, their jars from Maven, Redis, Node, a browser.

Java and the jars are those of the product, which reads SSTables with Cassandra's classes. They lie
in a cache outside the tree, a folder for each state of a pom, and are shared by every checkout of
the machine. `fetch` fills it; the servers only look it up.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from group_scores.runners.flink import job_server
from group_scores.stores import java as product
from group_scores.stores.errors import GroupScoresError
from group_scores.stores.sstable import artifacts
from tests.servers import node
from tests.servers.browser import fetch_browser
from tests.servers.process import ServerError

POMS = {
    "cassandra": artifacts.POM,
    "kafka": Path(__file__).with_name("kafka.pom.xml"),
    "beam on flink": job_server.POM,
}
_MB = {"beam on flink": 160}
FLINK = Path(__file__).with_name("flink-requirements.txt")
_FLINK_PARTS = re.compile(
    r"[^/]+/deps/(?:lib/((?:flink-dist|log4j)[^/]*\.jar)"
    r"|plugins/metrics-prometheus/([^/]+\.jar))"
)
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


def jars(server: str) -> Path:
    """Return the folder of the jars. Raises ServerError when they were not fetched."""
    folder = product.jar_folder(POMS[server])
    if not folder.is_dir():
        raise ServerError(f"the {server} jars are not in {folder.parent}: run `make servers`")
    return folder


def beam_jars() -> list[Path]:
    """Return Beam's jars and what they need, without Flink's."""
    jars("beam on flink")  # or it is said how to fetch them
    return job_server.cluster_jars()


def flink() -> Path:
    """Return the folder of Flink's distribution. Raises ServerError when it was not fetched."""
    folder = _flink_folder()
    if not folder.is_dir():
        raise ServerError(f"Flink is not in {folder.parent}: run `make servers`")
    return folder


def fetch_flink() -> None:
    """Take out of Flink's package what a cluster needs, once: no tables, no examples."""
    target = _flink_folder()
    if target.is_dir():
        return
    print(f"Fetching Flink into {target} (some 230 MB, once)", flush=True)
    product.whole(target, _unpack_flink)


def _flink_folder() -> Path:
    digest = hashlib.sha256(FLINK.read_bytes()).hexdigest()[:12]
    return product.cache() / f"flink-{digest}"


def _unpack_flink(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes"]
        options += ["--no-deps", "--no-build-isolation"]
        _run(
            [
                *(sys.executable, "-m", "pip", "download"),
                *options,
                *("-d", folder, "-r", str(FLINK)),
            ],
            "Flink could not be downloaded",
        )
        (target / "lib").mkdir(parents=True)
        (packed,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(packed) as archive:
            for member in archive:
                if match := _FLINK_PARTS.fullmatch(member.name):
                    file = archive.extractfile(member)
                    assert file is not None
                    (target / "lib" / (match[1] or match[2])).write_bytes(file.read())


def java() -> str:
    """Return a Java that can run all the servers. Raises ServerError when there is none."""
    try:
        return str(product.program())
    except GroupScoresError as error:
        raise ServerError(str(error)) from None


def fetch(server: str) -> None:
    """Copy the jars of `server` from Maven into the cache, once; whole or not at all."""
    target = product.jar_folder(POMS[server])
    if target.is_dir():
        return
    print(f"Fetching {server} into {target} (some {_MB.get(server, 60)} MB, once)", flush=True)
    try:
        product.jars(POMS[server])
    except GroupScoresError as error:
        raise ServerError(str(error)) from None


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
        fetch("beam on flink")
        fetch_flink()
        install_redis()
        fetch_browser()
        node.fetch(node.PORTAL)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        command, stdin=None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-20:]), file=sys.stderr)
        raise ServerError(failure)
