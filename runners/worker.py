"""One worker process of a local run with several: Beam's own, with the launcher's logging.

Beam's worker prints all that it has to say to standard error, and gets no pipeline options from
the local runner that could keep it from that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

from group_scores.runners.command import DEBUG
from group_scores.runners.logs import format_in, set_up_logging

_LOOK_EVERY_S = 0.3


def main(debug: bool, log_format: str) -> None:
    """Serve the runner that is named in the environment until it is done."""
    set_up_logging(debug, log_format)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # Beam prints the traceback of a bundle that fails, and logs it as well; Python does at the end,
    # where the launcher has gone.
    sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    # Lines that go to the launcher as well would come twice.
    os.environ.pop("LOGGING_API_SERVICE_DESCRIPTOR", None)
    options = json.loads(os.environ.get("PIPELINE_OPTIONS") or "{}")
    level = {"default_sdk_harness_log_level": "INFO" if debug else "ERROR"}
    os.environ["PIPELINE_OPTIONS"] = json.dumps(level | options)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _end_with(parent: int) -> None:
    """End this process when its launcher has ended, however it did."""
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


if __name__ == "__main__":
    main(DEBUG in sys.argv, format_in(sys.argv))
