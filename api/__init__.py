"""The group aggregate service: who may ask, who is in a group, and what their rows say.

Everything of HTTP belongs here: tokens, the envelope, limits, metrics. It reads `stores` and
`scores` and knows no Beam; a statement or a rule of scoring does not belong here.
"""

from group_scores.api.settings import Settings

__all__ = ["Settings"]
