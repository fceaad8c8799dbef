"""Realistic assessment events, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

_START_MS = 1_760_000_000_000
_ATTEMPTS_A_LEARNER = 8
_BACKLOG = 1000  # how far a redelivered or shuffled event can be from its place
_TOPICS = ("fractions", "photosynthesis", "magnetism", "the water cycle", "soil", "percentages")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Simulation:
    """What to simulate: fractions are of the events, from 0 to 1.

    `redeliver` come a second time, `shuffle` arrive out of order, `invalid` break a rule.
    """

    events: int
    seed: int
    redeliver: float = 0.0
    shuffle: float = 0.0
    invalid: float = 0.0


def simulate(simulation: Simulation) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, event) pairs: the learner's id and one JSON text, 2 to 10 kB."""
    draw = random.Random(simulation.seed)
    return _redelivered(_shuffled(_events(simulation, draw), simulation, draw), simulation, draw)


def _events(simulation: Simulation, draw: random.Random) -> Iterator[tuple[bytes, bytes]]:
    world = _World(draw, max(1, simulation.events // _ATTEMPTS_A_LEARNER))
    for number in range(simulation.events):
        event = world.event(number)
        key = str(event["userId"]).encode()
        if draw.random() < simulation.invalid:
            yield key, _spoil(event, draw)
        else:
            yield key, _encode(event)


def _shuffled(
    events: Iterator[tuple[bytes, bytes]], simulation: Simulation, draw: random.Random
) -> Iterator[tuple[bytes, bytes]]:
    late: list[tuple[bytes, bytes]] = []
    for event in events:
        if draw.random() < simulation.shuffle:
            late.append(event)
        else:
            yield event
        if len(late) > _BACKLOG or (late and draw.random() < simulation.shuffle / 2):
            yield late.pop(draw.randrange(len(late)))
    draw.shuffle(late)
    yield from late


def _redelivered(
    events: Iterator[tuple[bytes, bytes]], simulation: Simulation, draw: random.Random
) -> Iterator[tuple[bytes, bytes]]:
    recent: list[tuple[bytes, bytes]] = []
    for event in events:
        yield event
        if simulation.redeliver:
            if len(recent) < _BACKLOG:
                recent.append(event)
            else:
                recent[draw.randrange(_BACKLOG)] = event
            if draw.random() < simulation.redeliver:
                yield recent[draw.randrange(len(recent))]


class _World:
    """Courses with batches and assessments, and learners who attempt them."""

    def __init__(self, draw: random.Random, learners: int) -> None:
        self._draw = draw
        courses = max(1, min(20, learners // 12))
        self._courses = [
            {
                "id": self._content_id(),
                "batches": [f"01{draw.randrange(10**17):017d}" for _ in range(2)],
                "assessments": [self._assessment() for _ in range(3)],
            }
            for _ in range(courses)
        ]
        self._learners = [
            (self._uuid(), draw.choice(self._courses), draw.random()) for _ in range(learners)
        ]
        self._last: dict[str, dict[str, object]] = {}

    def event(self, number: int) -> dict[str, object]:
        """Return the next event: a new attempt, a corrected one, or one without answers."""
        draw = self._draw
        user_id, course, skill = draw.choice(self._learners)
        time_ms = _START_MS + number * 977 + draw.randrange(900)
        before = self._last.get(user_id)
        if before is not None and draw.random() < 0.08:
            # The player sends an attempt again, with more answers or with an older state of it.
            content = before["content"]
            attempt_id = str(before["attempt"])
            if draw.random() < 0.3:
                time_ms = int(str(before["time"])) - draw.randrange(1, 5000)
        else:
            content = draw.choice(course["assessments"])
            attempt_id = f"{draw.getrandbits(128):032x}"
        self._last[user_id] = {"content": content, "attempt": attempt_id, "time": time_ms}
        assert isinstance(content, dict)
        event = {
            "assessmentTs": time_ms,
            # A learner stays in one batch, but for a few who are in both.
            "batchId": course["batches"][int(skill * 2.1) % 2],
            "courseId": course["id"],
            "userId": user_id,
            "attemptId": attempt_id,
            "contentId": content["id"],
            "events": [],
        }
        if draw.random() > 0.01:
            event["events"] = self._answers(event, content, skill, time_ms)
        return event

    def _answers(
        self, event: dict[str, object], content: dict[str, object], skill: float, time_ms: int
    ) -> list[dict[str, object]]:
        draw = self._draw
        session = f"{draw.getrandbits(128):032x}"
        answers = []
        questions = content["questions"]
        assert isinstance(questions, list)
        for index, question in enumerate(questions, 1):
            for _ in range(1 if draw.random() < 0.85 else 2):  # some are answered twice
                time_ms += draw.randrange(1000, 20_000)
                answers.append(self._answer(event, question, index, skill, time_ms, session))
        return answers

    def _answer(
        self,
        event: dict[str, object],
        question: dict[str, object],
        index: int,
        skill: float,
        time_ms: int,
        session: str,
    ) -> dict[str, object]:
        draw = self._draw
        right = draw.random() < 0.35 + 0.6 * skill
        maximum = question["maxscore"]
        assert isinstance(maximum, int)
        score = maximum if right else round(draw.choice((0, 0, 0.33, 0.5)) * maximum, 2)
        chosen = draw.randrange(1, 5)
        answered: object = [{str(chosen): f'{{"text":"option {chosen}\\n"}}'}]
        if draw.random() < 0.005:
            answered = "skipped"  # players have sent such things: an optional field, ignored
        return {
            "eid": "ASSESS",
            "ets": time_ms,
            "ver": "3.1",
            "mid": f"ASSESS:{draw.getrandbits(128):032x}",
            "actor": {"id": event["userId"], "type": "User"},
            "context": {
                "channel": "0124784842112040965",
                "pdata": {
                    "id": "dev.sunbird.portal",
                    "ver": "3.9.0",
                    "pid": "sunbird-portal.contentplayer",
                },
                "env": "contentplayer",
                "sid": session,
                "did": session[::-1],
                "cdata": [
                    {"id": event["courseId"], "type": "course"},
                    {"id": event["batchId"], "type": "batch"},
                    {"id": event["attemptId"], "type": "AttemptId"},
                ],
                "rollup": {"l1": "0124784842112040965"},
            },
            "object": {
                "id": event["contentId"],
                "type": "Content",
                "ver": "1",
                "rollup": {"l1": event["courseId"]},
            },
            "tags": ["0124784842112040965"],
            "edata": {
                "item": question,
                "index": index,
                "pass": "Yes" if right else "No",
                "score": score,
                "resvalues": answered,
                "duration": draw.choice((2, 4, 8, 14, 24, 7.5)),
            },
        }

    def _assessment(self) -> dict[str, object]:
        draw = self._draw
        return {
            "id": self._content_id(),
            "questions": [self._question(draw.choice(_TOPICS)) for _ in range(draw.choice((4, 5)))],
        }

    def _question(self, topic: str) -> dict[str, object]:
        draw = self._draw
        params: list[dict[str, str]] = [
            {str(n): f'{{"text":"option {n} about {topic}, as the book has it\\n"}}'}
            for n in range(1, 5)
        ]
        params.append({"answer": f'{{"correct":["{draw.randrange(1, 5)}"]}}'})
        return {
            "id": self._uuid(),
            "maxscore": draw.choice((1, 1, 1, 2)),
            "type": draw.choice(("mcq", "mcq", "ftb", "mtf")),
            "exlength": 0,
            "params": params,
            "uri": "",
            "title": f"Which of these is true of {topic}?\n",
            "mmc": [],
            "mc": [],
            "desc": "",
        }

    def _uuid(self) -> str:
        digits = f"{self._draw.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _content_id(self) -> str:
        return f"do_{self._draw.randrange(10**20, 10**21)}"


def _first(event: dict[str, object]) -> dict[str, object]:
    """Return the first answer of the event, which is given one where it has none."""
    events = event["events"]
    assert isinstance(events, list)
    if not events:
        events.append({"ets": 1, "edata": {"item": {"id": "q", "maxscore": 1}, "score": 0}})
    answer: dict[str, object] = events[0]
    return answer


def _edata(event: dict[str, object], **fields: object) -> bytes:
    answer = _first(event)
    edata = answer["edata"]
    assert isinstance(edata, dict)
    return _with_first(event, answer | {"edata": edata | fields})


def _item(event: dict[str, object], **fields: object) -> bytes:
    edata = _first(event)["edata"]
    assert isinstance(edata, dict)
    return _edata(event, item=edata["item"] | fields)


def _with_first(event: dict[str, object], answer: dict[str, object]) -> bytes:
    events = event["events"]
    assert isinstance(events, list)
    return _encode(event | {"events": [answer, *events[1:]]})


_SPOILERS: tuple[Callable[[dict[str, object]], bytes], ...] = (
    lambda e: _encode(e)[:-40],  # cut off: not JSON
    lambda e: _encode(e).replace(b'"userId"', b'"\xff\xfe"', 1)[::-1],  # neither JSON nor UTF-8
    lambda e: _encode([e]),
    lambda e: _encode({k: v for k, v in e.items() if k != "userId"}),
    lambda e: _encode(e | {"userId": "u" * 70_000}),
    lambda e: _encode(e | {"courseId": "  "}),
    lambda e: _encode(e | {"assessmentTs": str(e["assessmentTs"])}),
    lambda e: _encode(e | {"assessmentTs": 0}),
    lambda e: _encode(e | {"events": {"not": "a list"}}),
    lambda e: _edata(e, score="NaN"),
    lambda e: _edata(e, score=None),
    lambda e: _edata(e, item=None),
    lambda e: _item(e, maxscore=-1),
    lambda e: _item(e, id=""),
    lambda e: _with_first(e, _first(e) | {"ets": None}),
)


def _spoil(event: dict[str, object], draw: random.Random) -> bytes:
    return draw.choice(_SPOILERS)(event)
