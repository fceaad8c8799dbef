"""Keys that Flink gives to one worker each: which worker has a key is a matter of its hash.

The rule is Flink's own (`KeyGroupRangeAssignment`, `MathUtils.murmurHash`), on the hash that Java
has of the bytes (`ByteBuffer.hashCode`), which is what Beam's runner partitions by.
"""

from __future__ import annotations

import itertools

_WORD = 0xFFFFFFFF


def spread(parallelism: int, max_parallelism: int | None = None) -> tuple[bytes, ...]:
    """Return a key for each of the parallel workers, in their order."""
    most = max_parallelism or default_max_parallelism(parallelism)
    found: dict[int, bytes] = {}
    for number in itertools.count():
        key = b"%d" % number
        found.setdefault(worker_of(key, parallelism, most), key)
        if len(found) == parallelism:
            return tuple(found[worker] for worker in range(parallelism))
    raise AssertionError("there is no end of keys")


def worker_of(key: bytes, parallelism: int, max_parallelism: int) -> int:
    """Return which of the workers has `key`."""
    group = _murmur(_java_hash(key)) % max_parallelism
    return group * parallelism // max_parallelism


def default_max_parallelism(parallelism: int) -> int:
    """Return the number of key groups that Flink makes where none is given."""
    wanted = parallelism + parallelism // 2
    return min(max(1 << (wanted - 1).bit_length(), 128), 1 << 15)


def _java_hash(data: bytes) -> int:
    """Return the hash of a ByteBuffer: 31 to the powers, from the last byte on; signed bytes."""
    result = 1
    for byte in reversed(data):
        result = (31 * result + (byte - 256 if byte > 127 else byte)) & _WORD
    return result


def _murmur(code: int) -> int:
    code = (code * 0xCC9E2D51) & _WORD
    code = (code << 15 | code >> 17) & _WORD
    code = (code * 0x1B873593) & _WORD
    code = (code << 13 | code >> 19) & _WORD
    code = (code * 5 + 0xE6546B64) & _WORD
    code ^= 4
    code ^= code >> 16
    code = (code * 0x85EBCA6B) & _WORD
    code ^= code >> 13
    code = (code * 0xC2B2AE35) & _WORD
    code ^= code >> 16
    signed = code - (1 << 32) if code >> 31 else code
    if signed >= 0:
        return signed
    return -signed if signed != -(1 << 31) else 0
