"""Where attempts and aggregates are kept: one protocol, two backends.

All CQL and SQL of the project is here, and everything about write times that a backend has to
keep. What an attempt is worth is the rules' business (`scores`), when to try again the pipeline's
(`transforms`).
"""

from group_scores.scores import AggregateRow
from group_scores.stores.errors import (
    AddressError,
    ClockSkewError,
    GroupScoresError,
    ServiceUnavailableError,
    StoreFault,
    StoreRefusedError,
    StoreTransientError,
)
from group_scores.stores.open import StoreConfig, open_store
from group_scores.stores.protocol import (
    ActivityRow,
    AggColumns,
    AttemptsRead,
    AttemptWrite,
    Pruning,
    Selection,
    Store,
    Table,
)

__all__ = [
    "ActivityRow",
    "AddressError",
    "AggColumns",
    "AggregateRow",
    "AttemptWrite",
    "AttemptsRead",
    "ClockSkewError",
    "GroupScoresError",
    "Pruning",
    "Selection",
    "ServiceUnavailableError",
    "Store",
    "StoreConfig",
    "StoreFault",
    "StoreRefusedError",
    "StoreTransientError",
    "Table",
    "open_store",
]
