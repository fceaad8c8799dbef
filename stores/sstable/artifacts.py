"""What reading SSTables needs from outside: Java, and the classes of Cassandra.

The jars come from the installed Cassandra whose `lib` folder CASSANDRA_LIB names, or from Maven,
once, into the user's cache; our own program is compiled against them, once for each state of both,
by the compiler that comes with Cassandra: a Java without one will do. The test servers take Java,
the jars and the modules' options from here too.
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

from group_scores.stores.errors import AddressError, GroupScoresError

HERE = Path(__file__).parent
SOURCES = tuple(HERE / f"{name}.java" for name in ("SnapshotReader", "Pack", "Purge", "Wrong"))
POM = HERE / "cassandra.pom.xml"
JVMS = Path("/usr/lib/jvm")
JAVA_VERSIONS = range(17, 24)  # Cassandra 5.0: not older, and 24 took the security manager away
COMPILER = "org.eclipse.jdt.internal.compiler.batch.Main"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_EXPORTS = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
]
_OPENS = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.math",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
]
MODULES = [
    *(word for name in _EXPORTS for word in ("--add-exports", f"{name}=ALL-UNNAMED")),
    *(word for name in _OPENS for word in ("--add-opens", f"{name}=ALL-UNNAMED")),
]


@functools.cache
def java() -> Path:
    """Return a Java that Cassandra 5.0 runs on; raises GroupScoresError."""
    found: dict[Path, int] = {}
    for program in _javas():
        version = _version(program)
        if version in JAVA_VERSIONS:
            return program
        found[program] = version
    seen = ", ".join(f"{program} is {version or 'broken'}" for program, version in found.items())
    raise GroupScoresError(
        f"Cassandra's classes need Java {JAVA_VERSIONS.start} to {JAVA_VERSIONS.stop - 1}"
        f" ({seen or 'none found'}): install one (Debian: apt-get install default-jre-headless)"
        " or set JAVA_HOME"
    )


def classpath(*sources: Path) -> str:
    """Return the class path of a program (the reader of SSTables), made at the first call.

    Raises GroupScoresError where Java, Maven or the jars are missing, AddressError for a wrong
    CASSANDRA_LIB.
    """
    sources = sources or SOURCES
    lib = _installed() or jars(POM)
    texts = b"".join(source.read_bytes() for source in sources)
    state = hashlib.sha256(texts + str(lib).encode()).hexdigest()[:12]
    target = cache() / f"{sources[0].stem}-{state}"
    classes = _whole(target, lambda to: _compile(sources, lib, to))
    return f"{classes}:{lib}/*"


def cache() -> Path:
    """Return the folder of all that was fetched or compiled, of every checkout of the user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "group-scores" / "jars"


def jar_folder(pom: Path) -> Path:
    """Return where the jars of a pom lie, there or not: the name follows the pom's text."""
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    return cache() / f"{pom.name.partition('.')[0]}-{digest}"


def jars(pom: Path) -> Path:
    """Return the folder of the jars of a pom, fetched at the first call.

    Raises GroupScoresError where Maven is missing or fails.
    """
    return _whole(jar_folder(pom), lambda to: _fetch(pom, to))


def _installed() -> Path | None:
    named = os.environ.get("CASSANDRA_LIB")
    if not named:
        return None
    if not _cassandra_jars(Path(named)):
        raise AddressError(
            f"CASSANDRA_LIB is {named}, which holds no apache-cassandra-5 jar: name the lib "
            "folder of a Cassandra 5.0, or unset it to have the jars fetched"
        )
    return Path(named).resolve()


def _cassandra_jars(lib: Path) -> list[Path]:
    return [*lib.glob("apache-cassandra-5*.jar"), *lib.glob("cassandra-all-5*.jar")]


def _whole(target: Path, make: Callable[[Path], None]) -> Path:
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


def _fetch(pom: Path, target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise GroupScoresError(
            f"the jars of {pom.name} are fetched with Maven, and mvn is not on the PATH: install "
            "it (Debian: apt-get install maven), or name a Cassandra 5.0's lib folder in "
            "CASSANDRA_LIB"
        )
    options = ["-B", "-q", "-f", str(pom), COPY, f"-DoutputDirectory={target}"]
    _run([maven, *options], f"Maven could not fetch the jars of {pom.name}")


def _compile(sources: Sequence[Path], lib: Path, target: Path) -> None:
    # Only what the program names itself: some of the other jars have packages of Java's own.
    needed = [*_cassandra_jars(lib), *lib.glob("guava-*.jar")]
    target.mkdir()
    command = [
        *(str(java()), "-cp", os.pathsep.join(map(str, lib.glob("ecj-*.jar")))),
        *(COMPILER, "-17", "-nowarn", "-d", str(target)),
        *("-cp", os.pathsep.join(map(str, needed)), *map(str, sources)),
    ]
    _run(command, f"{sources[0].name} does not compile against {lib}")


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


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        raise GroupScoresError(f"{failure}: {(said or ['no reason given'])[0].strip()}")
