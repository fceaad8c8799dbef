"""Realistic assessment events, the same for the same seed, in constant memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from group_scores.runners.simulate_faults import spoil, with_strange_fields

_START_MS = 1_760_000_000_000
_EVENT_EVERY_MS = 977
_ATTEMPTS_A_LEARNER = 8
_MOST_LEARNERS = 2_000  # at a time: a simulation of any length takes the same memory
_BACKLOG = 1_000  # how far a redelivered or shuffled event can be from its place
_CHANNEL = "0124784842112040965"
_PDATA = {"id": "dev.sunbird.portal", "ver": "3.9.0", "pid": "sunbird-portal.contentplayer"}
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
    """Yield (key, event) pairs: the learner's id and one message, mostly of 2 to 10 kB."""
    draw = random.Random(simulation.seed)
    return _redelivered(_shuffled(_events(simulation, draw), simulation, draw), simulation, draw)


def _events(simulation: Simulation, draw: random.Random) -> Iterator[tuple[bytes, bytes]]:
    world = _World(draw, simulation.events)
    for number in range(simulation.events):
        event = world.event(number)
        key = str(event["userId"]).encode()
        if draw.random() < simulation.invalid:
            yield key, spoil(_encode(event), draw)
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


@dataclass(frozen=True)
class _Assessment:
    content_id: str
    questions: list[dict[str, object]]


@dataclass(frozen=True)
class _Course:
    course_id: str
    batches: list[str]
    assessments: list[_Assessment]


@dataclass
class _Learner:
    """A learner, with the attempt that was sent last: it may be sent again in another state."""

    user_id: str
    course: _Course
    batches: list[str]
    skill: float
    assessment: _Assessment | None = None
    attempt_id: str = ""
    time_ms: int = 0


class _World:
    """Courses with batches and assessments, and learners who come, attempt them and go."""

    def __init__(self, draw: random.Random, events: int) -> None:
        self._draw = draw
        learners = max(1, events // _ATTEMPTS_A_LEARNER)
        courses = max(1, min(20, learners // 12))
        self._courses = [self._course() for _ in range(courses)]
        self._learners = [self._learner() for _ in range(min(learners, _MOST_LEARNERS))]
        self._turnover = (learners - len(self._learners)) / max(1, events)

    def event(self, number: int) -> dict[str, object]:
        """Return the next event: a new attempt, another state of the last, or one of no answers."""
        draw = self._draw
        if self._turnover and draw.random() < self._turnover:
            self._learners[draw.randrange(len(self._learners))] = self._learner()
        learner = draw.choice(self._learners)
        time_ms = self._begin_attempt(learner, _START_MS + number * _EVENT_EVERY_MS)
        assert learner.assessment is not None
        event: dict[str, object] = {
            "assessmentTs": time_ms if draw.random() < 0.99 else float(time_ms),
            "batchId": draw.choice(learner.batches),
            "courseId": learner.course.course_id,
            "userId": learner.user_id,
            "attemptId": learner.attempt_id,
            "contentId": learner.assessment.content_id,
        }
        kind = draw.random()
        if kind > 0.015:
            event["events"] = self._answers(event, learner, time_ms)
        elif kind > 0.005:  # the rest has no field of that name
            event["events"] = [] if kind > 0.01 else None
        return event

    def _begin_attempt(self, learner: _Learner, time_ms: int) -> int:
        """Decide what the learner does next; return its assessmentTs."""
        draw = self._draw
        time_ms += draw.randrange(900)
        if learner.assessment is None or draw.random() > 0.08:
            learner.assessment = draw.choice(learner.course.assessments)
            learner.attempt_id = f"{draw.getrandbits(128):032x}"
        elif draw.random() < 0.3:
            # An older state of an attempt, sent after the newer: it changes nothing.
            return learner.time_ms - draw.randrange(1, 5000)
        learner.time_ms = time_ms
        return time_ms

    def _answers(
        self, event: dict[str, object], learner: _Learner, time_ms: int
    ) -> list[dict[str, object]]:
        draw = self._draw
        about = _surroundings(event, session=f"{draw.getrandbits(128):032x}")
        answers: list[dict[str, object]] = []
        assert learner.assessment is not None
        for index, question in enumerate(learner.assessment.questions, 1):
            for _ in range(1 if draw.random() < 0.92 else 2):  # some are answered twice
                if draw.random() < 0.98:  # now and then at one and the same time
                    time_ms += draw.randrange(1000, 20_000)
                edata = {"item": question, "index": index, **self._result(question, learner.skill)}
                mid = f"ASSESS:{draw.getrandbits(128):032x}"
                answer = {"eid": "ASSESS", "ets": time_ms, "ver": "3.1", "mid": mid, **about}
                answer["edata"] = edata
                strange = draw.random() < 0.004
                answers.append(with_strange_fields(answer, draw) if strange else answer)
        return answers

    def _result(self, question: dict[str, object], skill: float) -> dict[str, object]:
        draw = self._draw
        right = draw.random() < 0.35 + 0.6 * skill
        maximum = question["maxscore"]
        assert isinstance(maximum, int)
        chosen = draw.randrange(1, 5)
        return {
            "pass": "Yes" if right else "No",
            "score": maximum if right else round(draw.choice((0, 0, 0.33, 0.5)) * maximum, 2),
            "resvalues": [{str(chosen): f'{{"text":"option {chosen}\\n"}}'}],
            "duration": draw.choice((2, 4, 8, 14, 24, 7.5)),
        }

    def _learner(self) -> _Learner:
        draw = self._draw
        course = draw.choice(self._courses)
        # A learner is in one batch of the course, but for a few who are in both.
        batches = course.batches if draw.random() < 0.05 else [draw.choice(course.batches)]
        return _Learner(self._uuid(), course, batches, skill=draw.random())

    def _course(self) -> _Course:
        draw = self._draw
        batches = [f"01{draw.randrange(10**17):017d}" for _ in range(2)]
        sizes = (3, 4, 6) if draw.random() < 0.5 else (4, 5, 6)
        return _Course(self._content_id(), batches, [self._assessment(size) for size in sizes])

    def _assessment(self, questions: int) -> _Assessment:
        return _Assessment(self._content_id(), [self._question() for _ in range(questions)])

    def _question(self) -> dict[str, object]:
        draw = self._draw
        topic = draw.choice(_TOPICS)
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


def _surroundings(event: dict[str, object], session: str) -> dict[str, object]:
    """Return what an answer's telemetry says of who, where and with what, as recorded."""
    return {
        "actor": {"id": event["userId"], "type": "User"},
        "context": {
            "channel": _CHANNEL,
            "pdata": _PDATA,
            "env": "contentplayer",
            "sid": session,
            "did": session[::-1],
            "cdata": [
                {"id": event["courseId"], "type": "course"},
                {"id": event["batchId"], "type": "batch"},
                {"id": event["attemptId"], "type": "AttemptId"},
            ],
            "rollup": {"l1": _CHANNEL},
        },
        "object": {
            "id": event["contentId"],
            "type": "Content",
            "ver": "1",
            "rollup": {"l1": event["courseId"]},
        },
        "tags": [_CHANNEL],
    }
