"""What reading SSTables needs from outside: the classes of Cassandra.

The jars come from the installed Cassandra whose `lib` folder CASSANDRA_LIB names, or from Maven;
our own program is compiled against them, once for each state of both, by the compiler that comes
with Cassandra: a Java without one will do. The test servers take the modules' options from here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from group_scores.stores import java
from group_scores.stores.errors import AddressError

HERE = Path(__file__).parent
SOURCES = tuple(HERE / f"{name}.java" for name in ("SnapshotReader", "Pack", "Purge", "Wrong"))
POM = HERE / "cassandra.pom.xml"
_OR_INSTALLED = "name a Cassandra 5.0's lib folder in CASSANDRA_LIB"
COMPILER = "org.eclipse.jdt.internal.compiler.batch.Main"
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


def classpath(*sources: Path) -> str:
    """Return the class path of a program (the reader of SSTables), made at the first call.

    Raises GroupScoresError where Java, Maven or the jars are missing, AddressError for a wrong
    CASSANDRA_LIB.
    """
    sources = sources or SOURCES
    lib = _installed() or java.jars(POM, _OR_INSTALLED)
    texts = b"".join(source.read_bytes() for source in sources)
    state = hashlib.sha256(texts + str(lib).encode()).hexdigest()[:12]
    target = java.cache() / f"{sources[0].stem}-{state}"
    classes = java.whole(target, lambda to: _compile(sources, lib, to))
    return f"{classes}:{lib}/*"


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


def _compile(sources: Sequence[Path], lib: Path, target: Path) -> None:
    # Only what the program names itself: some of the other jars have packages of Java's own.
    needed = [*_cassandra_jars(lib), *lib.glob("guava-*.jar")]
    target.mkdir()
    command = [
        *(str(java.program()), "-cp", os.pathsep.join(map(str, lib.glob("ecj-*.jar")))),
        *(COMPILER, "-17", "-nowarn", "-d", str(target)),
        *("-cp", os.pathsep.join(map(str, needed)), *map(str, sources)),
    ]
    java.run(command, f"{sources[0].name} does not compile against {lib}")
