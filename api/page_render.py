"""The page as HTML: templates whose every value is escaped, and the policy that goes with them.

The style and the script are ours, stand in the page, and are the only ones that the policy lets a
browser run; nothing is loaded but from this server.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from group_scores.api import page_views as views
from group_scores.api.errors import ApiError
from group_scores.api.group_view import GroupScores, MemberScores
from group_scores.api.page_views import Chart, Place
from group_scores.api.words import LANGUAGES, Words, words
from group_scores.reports.names import Names
from group_scores.reports.text import time_text
from group_scores.scores.detail import DetailedAttempt
from group_scores.scores.report import AssessmentScore

_templates = resources.files(__package__) / "templates"
_STYLE = (_templates / "page.css").read_text("utf-8")
_SCRIPT = (_templates / "page.js").read_text("utf-8")
_SAID = (400, 401, 403, 404, 405, 413, 500, 503)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_env = Environment(
    loader=PackageLoader("group_scores.api"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_env.globals |= {
    "style": Markup(_STYLE),
    "script": Markup(_SCRIPT),
    "spread_words": views.spread_words,
    "spread_bars": views.spread_bars,
}
_env.filters["shown"] = views.shown


def _render(template: str, said: Words, kept: Sequence[tuple[str, str]], **values: object) -> bytes:
    """Render; `kept` is the query that the page keeps in another language."""
    others = [(name, value) for name, value in kept if name != "lang"]
    languages = [
        (words(lang), f"?{urlencode([*others, ('lang', lang)], errors='replace')}")
        for lang in LANGUAGES
    ]
    text = _env.get_template(template).render(words=said, languages=languages, **values)
    return text.encode("utf-8", "replace")


def group_page(
    place: Place, scores: GroupScores, names: Names, said: Words, *, details: bool
) -> bytes:
    """Return the page of a group; `details` tells whether the store keeps single attempts."""
    name = names.name(place.activity_id)
    return _render(
        "group.html",
        said,
        place.query,
        place=place,
        scores=scores,
        activity_name=views.shown(name) if name else None,
        heads=views.heads(scores, names),
        rows=views.rows(scores, said, place, details=details),
    )


@dataclass(frozen=True)
class _Attempt:
    time: str
    at: str
    score: str
    percent: str | None


@dataclass(frozen=True)
class _Assessment:
    name: str | None
    content_id: str
    best: str
    chart: Chart | None
    attempts: tuple[_Attempt, ...]


@dataclass(frozen=True)
class _Batch:
    batch_id: str
    assessments: tuple[_Assessment, ...]


def member_page(
    place: Place,
    member: MemberScores,
    details: Sequence[Sequence[DetailedAttempt]],
    names: Names,
    said: Words,
) -> bytes:
    """Return the page of a member's attempts; `details` has those of each batch."""
    batches = []
    for batch, attempts in zip(member.batches, details, strict=True):
        of = {key: list(some) for key, some in groupby(attempts, lambda one: one.content_id)}
        assessments = [
            _assessment(content, batch.row.scores, of.get(content, []), names, said)
            for content in sorted(batch.row.scores.keys() | of.keys())
        ]
        batches.append(_Batch(views.shown(batch.batch_id), tuple(assessments)))
    name = views.shown(member.name)
    return _render("member.html", said, place.query, place=place, name=name, batches=batches)


def _assessment(
    content: str,
    scores: dict[str, AssessmentScore],
    attempts: Sequence[DetailedAttempt],
    names: Names,
    said: Words,
) -> _Assessment:
    name = names.name(content)
    line = views.score_line(scores.get(content), said)
    best = line.text if line.percent is None else f"{line.text}, {line.percent}"
    rows = tuple(_attempt(one, said) for one in attempts)
    return _Assessment(
        views.shown(name) if name else None, views.shown(content), best, views.chart(attempts), rows
    )


def _attempt(one: DetailedAttempt, said: Words) -> _Attempt:
    at = time_text(one.attempted_ms)
    percent = views.percent_text(one.percent)
    return _Attempt(
        at.replace("T", " ").partition(".")[0],
        at,
        views.score_text(one.score, one.max_score, said),
        None if percent is None else said.plain("percent_of", percent=percent),
    )


def error_page(error: ApiError, request_id: str, said: Words) -> bytes:
    """Return the page of an error, with what it is in the reader's language."""
    key = f"error_{error.status if error.status in _SAID else 500}"
    return _render("error.html", said, (), key=key, error=error, request_id=request_id)
