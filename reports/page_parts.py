"""The head of the page, and its picture of a distribution."""

from __future__ import annotations

from group_scores.reports.distribution import BINS, Distribution, bin_label

CHART_NOTE = "A bar is the number of learners whose best score is so much of the maximum."
_BAR, _GAP, _HEIGHT, _FOOT, _HEADROOM = 46, 6, 120, 22, 18

HEAD = """<!DOCTYPE html>
<html lang="en" dir="ltr">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
:root {{ --text: #1b1b1b; --back: #fff; --line: #767676; --bar: #1f5fa8; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #eee; --back: #161616; --line: #999; --bar: #7db4f0; }}
}}
body {{ margin: 0; color: var(--text); background: var(--back); font: 1rem/1.5 sans-serif; }}
main {{ max-width: 72rem; margin-inline: auto; padding: 1rem; }}
h1, h2, h3, th, td {{ overflow-wrap: anywhere; }}
figure {{ margin-block: 0 2rem; margin-inline: 0; }}
figcaption h3, figcaption p {{ margin: 0; }}
svg {{ width: 100%; max-width: 36rem; height: auto; fill: var(--text); }}
svg .bar {{ fill: var(--bar); }}
svg line {{ stroke: var(--line); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid var(--line); padding: .25rem .5rem; text-align: start; }}
td {{ font-variant-numeric: tabular-nums; white-space: nowrap; }}
thead th {{ vertical-align: bottom; min-width: 5rem; }}
</style>
</head>
<body>
"""


def chart(spread: Distribution) -> str:
    """Return a picture of the bins, which says in words what it shows."""
    most = max(*spread.bins, 1)
    width = BINS * (_BAR + _GAP)
    height = _HEADROOM + _HEIGHT + _FOOT
    parts = []
    for number, count in enumerate(spread.bins):
        x = number * (_BAR + _GAP) + _GAP / 2
        middle = x + _BAR / 2
        tall = round(_HEIGHT * count / most, 1)
        if count:
            y = round(_HEADROOM + _HEIGHT - tall, 1)
            parts.append(f'<rect class="bar" x="{x}" y="{y}" width="{_BAR}" height="{tall}"/>')
            parts.append(_label(middle, y - 4, f"{count:,}"))
        parts.append(_label(middle, height - 6, bin_label(number)))
    base = _HEADROOM + _HEIGHT
    parts.append(f'<line x1="0" y1="{base}" x2="{width}" y2="{base}"/>')
    words = ", ".join(
        f"{bin_label(number)} %: {count:,}" for number, count in enumerate(spread.bins) if count
    )
    said = f"Learners by percent of the maximum. {words or 'None.'}"
    # Numbers go from left to right in every language's charts.
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" direction="ltr" aria-label="{said}">'
        f"{''.join(parts)}</svg>"
    )


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-size="12">{text}</text>'
