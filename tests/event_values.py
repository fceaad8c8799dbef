"""Events to put through the rules: valid ones, drawn; and every way to break one of them.

An event is a dictionary as the producer would send it. `message` writes it as JSON, and may hold
what no JSON library writes: a `Literal` stands in the text as it is, `Pairs` is an object whose
keys may repeat, and a lone surrogate from U+DC80 to U+DCFF inside a `Literal` is one raw byte.
"""

from __future__ import annotations

import copy
import json
import string
from typing import Any, NamedTuple

from hypothesis import strategies as st

IDS = ("courseId", "batchId", "userId", "contentId", "attemptId")
MAX_TIME_MS = 253_402_300_799_999


class Literal(str):
    """Text that stands in the message as it is."""


class Pairs(list[tuple[str, Any]]):
    """An object as its keys and values, in order, repetitions included."""


def message(value: Any, ascii_only: bool = False) -> bytes:
    """Write `value` as JSON; only ASCII, or all that UTF-8 can hold as it is."""
    return json_text(value, ascii_only).encode("utf-8", "surrogateescape")


def json_text(value: Any, ascii_only: bool) -> str:
    """Write `value` as JSON text; only ASCII, or all that UTF-8 can hold as it is."""
    if isinstance(value, Literal):
        return value
    if isinstance(value, str):
        written = json.dumps(value, ensure_ascii=ascii_only)
        return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in written)
    if isinstance(value, dict):
        value = Pairs(value.items())
    if isinstance(value, Pairs):
        inner = (
            f"{json_text(name, ascii_only)}:{json_text(item, ascii_only)}" for name, item in value
        )
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(item, ascii_only) for item in value) + "]"
    return json.dumps(value)


def answer(item_id: str = "q1", **fields: Any) -> dict[str, Any]:
    """One answered question with nothing optional; a field's name says where it belongs."""
    item = {"id": item_id, "maxscore": 1}
    edata: dict[str, Any] = {"item": item, "score": 1}
    telemetry: dict[str, Any] = {"eid": "ASSESS", "ets": 1_568_891_735_461, "edata": edata}
    for name, value in fields.items():
        if name in ("maxscore", "type", "title", "desc", "params"):
            item[name] = value
        elif name in ("score", "duration", "resvalues"):
            edata[name] = value
        else:
            telemetry[name] = value
    return telemetry


def event(*answers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A valid event of these answers; `fields` are put over a plain one's."""
    plain: dict[str, Any] = {
        "courseId": "do_course",
        "batchId": "batch",
        "userId": "user",
        "contentId": "do_content",
        "attemptId": "attempt",
        "assessmentTs": 1_568_891_729_576,
        "events": list(answers),
    }
    return plain | fields


# ---------------------------------------------------------------- breaking one thing

MISSING = Literal("missing")


class Breakage(NamedTuple):
    """`value` at `path` breaks a rule, and the error has to name `field`.

    In a path and a field, `[]` stands for one of the answers.
    """

    path: tuple[str, ...]
    value: Any
    field: str

    @property
    def title(self) -> str:
        """A name for the test's report."""
        text = json_text(self.value, True).encode("ascii", "backslashreplace").decode()
        return f"{'.'.join(self.path)}={text if len(text) < 24 else text[:20] + '...'}"


def breakages() -> list[Breakage]:
    """Every way in which a field of an event can break a rule."""
    found = [Breakage((name,), value, name) for name in IDS for value in _NOT_TEXT]
    found += [Breakage(("assessmentTs",), value, "assessmentTs") for value in _NOT_TIME]
    wrong_lists: list[Any] = ["", "x", "\ud800", {}, {"0": 1}, 0, 1, 1.5, True, False]
    found += [Breakage(("events",), value, "events") for value in wrong_lists]
    rules: list[tuple[tuple[str, ...], list[Any]]] = [
        (("events", "[]"), [None, 5, "x", "\ud800", [], True]),
        (("events", "[]", "ets"), _NOT_TIME),
        (("events", "[]", "edata"), _NOT_OBJECT),
        (("events", "[]", "edata", "score"), _NOT_NUMBER),
        (("events", "[]", "edata", "item"), _NOT_OBJECT),
        (("events", "[]", "edata", "item", "id"), _NOT_TEXT),
        (
            ("events", "[]", "edata", "item", "maxscore"),
            [*_NOT_NUMBER, -1, -0.5, -5e-324, Literal("-1e-300")],
        ),
    ]
    for path, values in rules:
        field = ".".join(path).replace(".[]", "[]")
        found += [Breakage(path, value, field) for value in values]
    return found


_NOT_TEXT: list[Any] = [
    MISSING,
    None,
    5,
    1.5,
    True,
    [],
    ["x"],
    {},
    "",
    " ",
    "\t\r\n ",
    "\u00a0\u2003\u3000",
    "\ud800",
    "x\udfffy",
    Literal('"\\ud83d"'),
    Literal('"x\udcff"'),  # a byte that is no UTF-8
    Literal('"\udced\udca0\udc80"'),  # a surrogate as if UTF-8 could hold one
]
_NOT_NUMBER: list[Any] = [
    MISSING,
    None,
    "",
    "1",
    "NaN",
    "\ud800",
    Literal('"\udcff"'),
    True,
    False,
    [],
    {},
    Literal("1e999"),
    Literal("-1e999"),
    Literal("9" * 400),
    Literal("9" * 5000),
    Literal("-" + "9" * 5000),
]
_NOT_TIME: list[Any] = [
    *_NOT_NUMBER,
    "1568891729576",
    0,
    -1,
    0.0,
    -1.0,
    0.5,
    1568891729576.5,
    1e300,
    2**63,
    -(2**63),
    10**308,
    MAX_TIME_MS + 1,
    float(MAX_TIME_MS + 1),
]
_NOT_OBJECT: list[Any] = [MISSING, None, 5, "x", "\ud800", Literal('"\udcff"'), [], [{}], True]

# Every rule by which a key can be too long: the ids that are as long as can be, and by how much
# one more byte is too many. Measured on Cassandra 5.0.6.
_SHORT = {"batchId": 1, "contentId": 1, "attemptId": 1}
KEY_LIMITS: list[tuple[dict[str, int], str]] = [
    ({"userId": 65_519, "courseId": 1, **_SHORT}, "userId"),  # Course + course + user + 9 bytes
    ({"courseId": 65_519, "userId": 1, **_SHORT}, "courseId"),
    ({"courseId": 32_760, "userId": 32_760}, "courseId"),
    ({"batchId": 65_532, "userId": 1, "contentId": 1, "attemptId": 1}, "batchId"),  # cb:
    ({"contentId": 65_520, "userId": 1, "batchId": 1, "attemptId": 1}, "contentId"),
    ({"attemptId": 65_532, "userId": 1, "batchId": 1, "contentId": 1}, "attemptId"),
    ({"attemptId": 20_000, "userId": 5_535, "batchId": 20_000, "contentId": 20_000}, "attemptId"),
]


def broken(valid: dict[str, Any], breakage: Breakage, index: int = 0) -> tuple[bytes, str]:
    """Return the message of `valid` with that one thing broken, and the field to be named."""
    event = copy.deepcopy(valid)
    place: Any = event
    path: list[Any] = [index if step == "[]" else step for step in breakage.path]
    for step in path[:-1]:
        place = place[step]
    if breakage.value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = breakage.value
    return message(event), breakage.field.replace("[]", f"[{index}]")


# ---------------------------------------------------------------- drawing

_characters = st.characters(codec="utf-8")
texts = st.text(_characters, max_size=8)
ids = st.text(_characters, min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
times = st.one_of(
    st.integers(1, 4),  # few, so that some are equal
    st.integers(1, MAX_TIME_MS),
    st.integers(1, 2**46).map(float),
)
numbers = st.one_of(
    st.integers(-4, 20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-100, 100, places=2).map(lambda number: Literal(str(number))),
    st.integers(-(10**20), 10**20),
)
_whole_bytes = st.sampled_from(
    [Literal('"\udcff"'), Literal('"a\udcc3("'), Literal('"\udced\udcb0\udc80"')]
)
strange = st.one_of(
    st.sampled_from(
        [
            Literal("1e999"),
            Literal("-1e999"),
            Literal("9" * 310),
            Literal("-" + "9" * 400),
            Literal("9" * 5000),
            Literal("1" + "0" * 308),
            Literal("0.10"),
            Literal("-0"),
            Literal("-0.0"),
            Literal("1E+5"),
            Literal("[" * 60 + "]" * 60),
            Literal('{"a":' * 60 + "1" + "}" * 60),
            Literal('"\\ud800"'),
            Literal('"\\ud83d\\ude00"'),
            Literal('"\\u0000\\/"'),
            "\udfff",
            Pairs([("a", 1), ("b", 2), ("a", 3)]),
            Pairs([("\ud800", 1)]),
        ]
    ),
    _whole_bytes,
)
keys = texts | st.sampled_from(["\ud800", "x\udfff", Literal('"\udcff"'), "id", "raw", "metadata"])


def json_values(leaves: st.SearchStrategy[Any], size: int = 4) -> st.SearchStrategy[Any]:
    """Draw JSON of these leaves, with strange keys."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(st.tuples(keys, inner), max_size=3).map(Pairs)
            | st.dictionaries(texts, inner, max_size=3)
        ),
        max_leaves=size,
    )


plain_json = st.none() | st.booleans() | numbers | texts
any_json = json_values(plain_json | strange)
_maps = st.lists(st.dictionaries(texts, texts | any_json, max_size=3), max_size=3)
_optional: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["mcq", "ftb"]) | texts | any_json,
    "title": texts | any_json,
    "desc": texts | any_json,
    "params": _maps | any_json,
    "resvalues": _maps | any_json,
    "duration": numbers | any_json,
}
_unknown = st.dictionaries(
    st.text(string.ascii_uppercase, min_size=1, max_size=3), any_json, max_size=2
)
_others = st.builds(dict.__or__, st.fixed_dictionaries({}, optional=_optional), _unknown)


@st.composite
def answers(draw: st.DrawFn, plain: bool = False) -> dict[str, Any]:
    """Draw an answer that keeps the rules, with anything in what is optional or unknown."""
    found = answer(
        draw(st.sampled_from(["q1", "q2", "q3"]) | ids),
        ets=draw(times),
        score=draw(numbers),
        maxscore=draw(st.integers(0, 10) | st.floats(0, 1e300) | st.just(Literal("-0.0"))),
        **({} if plain else draw(_others)),
    )
    if not plain:
        found["edata"] |= draw(_unknown)
        found["edata"]["item"] |= draw(_unknown)
    return found


@st.composite
def events(draw: st.DrawFn, least: int = 0, plain: bool = False) -> dict[str, Any]:
    """Draw an event that keeps the rules, with at least that many answers.

    A plain one has nothing in it that is optional or unknown.
    """
    given = draw(st.lists(answers(plain), min_size=least, max_size=4))
    found = event(
        *given,
        **draw(st.fixed_dictionaries(dict.fromkeys(IDS, ids))),
        assessmentTs=draw(times),
        **({} if plain else draw(_unknown)),
    )
    if not given:
        found["events"] = draw(st.sampled_from([None, [], MISSING]))
        if found["events"] is MISSING:
            del found["events"]
    return found


@st.composite
def messages(draw: st.DrawFn, least: int = 0) -> bytes:
    """Draw an event that keeps the rules as it could come in, spaces and escapes included."""
    written = message(draw(events(least)), draw(st.booleans()))
    return (
        draw(st.sampled_from([b"", b" ", b"\n\t"]))
        + written
        + draw(st.sampled_from([b"", b" ", b"\r\n"]))
    )
