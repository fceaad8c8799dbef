"""A Python worker of a Flink cluster: `group-scores-worker`, started beside a task manager.

What Beam's container contract says of a boot program: it is given its id and where to ask for the
rest, and becomes the SDK harness. The package is installed already, so nothing is fetched. Started
by the worker pool (`EXTERNAL`), or by the task manager itself (`PROCESS`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from group_scores.runners import worker
from group_scores.runners.command import DEBUG
from group_scores.runners.logs import FORMATS, OPTION, set_up_logging

_TIMEOUT_S = 30.0


def environment_of(worker_id: str, provision_endpoint: str, control: str = "") -> dict[str, str]:
    """Ask the task manager for what a worker needs; return it as Beam's harness wants it.

    `control` is where the worker's orders come from, where the task manager does not say so.
    Raises grpc.RpcError when it does not answer.
    """
    # Not before the logging is set up: loading Beam logs.
    import grpc
    from apache_beam.portability.api import (
        beam_provision_api_pb2,
        beam_provision_api_pb2_grpc,
        endpoints_pb2,
    )
    from google.protobuf import json_format, text_format

    metadata = (("worker_id", worker_id),)
    with grpc.insecure_channel(provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        answer = service.GetProvisionInfo(request, timeout=_TIMEOUT_S, metadata=metadata)
    info = answer.info
    found = info.control_endpoint.url or control
    return {
        "WORKER_ID": worker_id,
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
            endpoints_pb2.ApiServiceDescriptor(url=found), as_one_line=True
        ),
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options, indent=None),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and serve until the task manager is done."""
    parser = argparse.ArgumentParser(prog="group-scores-worker", description=__doc__)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    parser.add_argument("--control_endpoint", default="")
    parser.add_argument(DEBUG, action="store_true")
    parser.add_argument(OPTION, choices=FORMATS, default=FORMATS[0])
    given, _ = parser.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    set_up_logging(given.debug, given.log_format)
    os.environ.update(environment_of(given.id, given.provision_endpoint, given.control_endpoint))
    worker.main(given.debug, given.log_format)


if __name__ == "__main__":
    main()
