"""What only Kafka can do to us, beside the errors that all stores and sources share."""

from __future__ import annotations

from group_scores.stores.errors import GroupScoresError


class CorruptBatchError(GroupScoresError):
    """A batch of records fails its checksum or cannot be decompressed; reading again won't help."""


class MessageTooLargeError(GroupScoresError):
    """A message is over the topic's limit, compressed as well; `limit` is in bytes.

    The caller may cut the payload and send again: nothing of it was written.
    """

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword would be lost on the way from a worker to the launcher.
        return _too_large, (str(self), self.limit)


def _too_large(message: str, limit: int) -> MessageTooLargeError:
    return MessageTooLargeError(message, limit=limit)
