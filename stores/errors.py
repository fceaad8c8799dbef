"""What can go wrong outside the rules, by what has to happen next.

An operator meets these as one line and an exit code, the pipeline as a decision:
try again, refuse one event, or stop.
"""


class GroupScoresError(Exception):
    """One sentence that names the thing and the remedy; the command line prints it as it is."""

    exit_code = 1


class AddressError(GroupScoresError, ValueError):
    """An address, option or file is wrong: nothing but a correction helps (exit code 2)."""

    exit_code = 2


class ServiceUnavailableError(GroupScoresError):
    """A server cannot be reached, or refuses to work now; the same call may succeed later."""


class StoreTransientError(ServiceUnavailableError):
    """A store call failed for now (time-out, no replica, no connection), or took effect unseen."""


class ClockSkewError(StoreTransientError):
    """This worker's clock is further from the cluster's than writes by time allow."""


class StoreRefusedError(GroupScoresError):
    """The store will never take this statement (an invalid value, a mutation over its limit)."""


StoreFault = StoreTransientError | StoreRefusedError
"""How one item of a store call can fail; a call returns it in the item's place."""
