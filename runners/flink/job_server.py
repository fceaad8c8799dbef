"""The job server: the Java program that hands a Beam pipeline to Flink."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from group_scores.stores import java

POM = Path(__file__).with_name("job-server.pom.xml")
MAIN_CLASS = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_FLINKS_OWN = ("flink-", "slf4j-")
_LINE_BYTES = 72  # of a manifest, its line end not counted


def cluster_jars() -> list[Path]:
    """Return the jars that a cluster needs beside Flink's own; fetched as the job server is."""
    return [
        jar for jar in sorted(java.jars(POM).glob("*.jar")) if not jar.name.startswith(_FLINKS_OWN)
    ]


def job_server_jar() -> Path:
    """Return a jar that starts the job server, made at the first call.

    It has nothing in it but where the others are: the job server stages its class path with every
    job, and 160 MB would be copied to the cluster each time. Raises GroupScoresError where Maven is
    missing or fails.
    """
    jars = sorted(java.jars(POM).glob("*.jar"))
    lines = {
        "Manifest-Version": "1.0",
        "Main-Class": MAIN_CLASS,
        "Class-Path": " ".join(jar.as_uri() for jar in jars),
    }
    text = b"".join(_wrapped(f"{name}: {value}") for name, value in lines.items()) + b"\r\n"
    state = hashlib.sha256(text).hexdigest()[:12]
    target = java.cache() / f"job-server-{state}.jar"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            with zipfile.ZipFile(made, "w") as jar:
                jar.writestr("META-INF/MANIFEST.MF", text)
            os.replace(made, target)
    return target


def _wrapped(line: str) -> bytes:
    """Return a line of a manifest: what is too long goes on in the next one, behind a blank."""
    return b"".join(_parts(line.encode()))


def _parts(line: bytes) -> Iterator[bytes]:
    yield line[:_LINE_BYTES] + b"\r\n"
    for start in range(_LINE_BYTES, len(line), _LINE_BYTES - 1):
        yield b" " + line[start : start + _LINE_BYTES - 1] + b"\r\n"
