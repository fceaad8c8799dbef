"""The pipeline's stages as composite transforms: wiring, batching and trying again.

A transform is a small dataclass whose fields are its options; the work is a plain function beside
it that needs no runner. No scoring rule belongs here (`scores`), no CQL or SQL (`stores`).
"""

from group_scores.transforms.await_attempt import AwaitAttempt
from group_scores.transforms.batching import BatchSize, Outcome
from group_scores.transforms.certificate import RequestCertificates
from group_scores.transforms.check_content import CheckContent
from group_scores.transforms.combine_attempts import CombineAttempts
from group_scores.transforms.dead_letter import WriteDeadLetters
from group_scores.transforms.fetch_best_score import FetchBestScore
from group_scores.transforms.files import ReadFromFiles
from group_scores.transforms.merge_agg import MergeAgg
from group_scores.transforms.parse_event import ParseEvent
from group_scores.transforms.retry import Retry
from group_scores.transforms.score_attempt import ScoreAttempt
from group_scores.transforms.write_agg import WriteAgg
from group_scores.transforms.write_attempt import WriteAttempt

__all__ = [
    "AwaitAttempt",
    "BatchSize",
    "CheckContent",
    "CombineAttempts",
    "FetchBestScore",
    "MergeAgg",
    "Outcome",
    "ParseEvent",
    "ReadFromFiles",
    "RequestCertificates",
    "Retry",
    "ScoreAttempt",
    "WriteAgg",
    "WriteAttempt",
    "WriteDeadLetters",
]
