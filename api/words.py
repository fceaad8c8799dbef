"""The words of the page in each language, and which language somebody reads."""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache
from importlib import resources

import msgspec
from markupsafe import Markup

LANGUAGES = ("en", "hi", "ar", "ur")
_MOST_OFFERED = 20


class Words:
    """What the page says in one language; `lang` and `dir` are for the HTML element."""

    def __init__(self, lang: str, texts: Mapping[str, str]) -> None:
        self.lang = lang
        self.dir = texts["dir"]
        self.name = texts["language"]
        self._texts = texts

    def __getitem__(self, key: str) -> str:
        """Return a text as it stands, with its places for values."""
        return self._texts[key]

    def say(self, key: str, **values: object) -> Markup:
        """Return a text with values put in, each set apart, and escaped unless it is markup."""
        return Markup(self._texts[key]).format(
            **{name: Markup("<bdi>{}</bdi>").format(value) for name, value in values.items()}
        )

    def plain(self, key: str, **values: object) -> str:
        """Return a text with values put in, not escaped: for an attribute."""
        return self._texts[key].format(**values)

    def places(self) -> dict[str, set[str | None]]:
        """Return the names of the values that each text takes."""
        parse = string.Formatter().parse
        return {
            key: {name for _, name, _, _ in parse(text) if name is not None}
            for key, text in self._texts.items()
        }


@cache
def words(lang: str) -> Words:
    """Return the words of one of LANGUAGES."""
    data = (resources.files(__package__) / "languages" / f"{lang}.json").read_bytes()
    return Words(lang, msgspec.json.decode(data, type=dict[str, str]))


def choose(asked: str | None, accepted: str | None) -> Words:
    """Return the words of the language asked for, else of the first that is accepted, else English.

    `accepted` is an `accept-language` header. `hi-IN` is Hindi.
    """
    for tag in (asked or "", *_by_preference(accepted or "")):
        lang = tag.partition("-")[0].strip().lower()
        if lang in LANGUAGES:
            return words(lang)
    return words(LANGUAGES[0])


def _by_preference(header: str) -> list[str]:
    """Return the tags of the header, the one with the greatest `q` first; those with 0 not."""
    offered = []
    for part in header[:1_000].split(",")[:_MOST_OFFERED]:
        tag, _, weight = part.partition(";")
        try:
            quality = float(weight.partition("=")[2]) if weight.strip() else 1.0
        except ValueError:
            quality = 0.0
        if quality > 0:
            offered.append((quality, tag))
    return [tag for _, tag in sorted(offered, key=lambda one: -one[0])]
