"""What the flex template's launcher starts: the template's parameters become those of `run`.

The image has a copy of this file beside the package, as the launcher starts a file by its path.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from group_scores.runners import cli
from group_scores.runners.command import ending
from group_scores.runners.dataflow.metadata import options
from group_scores.runners.dataflow.passwords import load
from group_scores.stores.errors import GroupScoresError

IMAGE = "GROUP_SCORES_IMAGE"
"""The variable with the name of the image, which the workers run too."""


def run_arguments(words: Sequence[str], image: str | None = None) -> list[str]:
    """Return the command line of `group-scores run` for the launcher's arguments.

    Those of the template's parameters get the names that the command has; the rest is Beam's, and
    stays.
    """
    names = {f"--{name}": max(one.opts, key=len) for name, one in options().items()}
    made = []
    for word in words:
        name, equals, value = word.partition("=")
        made.append(f"{names.get(name, name)}{equals}{value}")
    if image and not any(word.startswith("--sdk_container_image") for word in words):
        made.append(f"--sdk_container_image={image}")
    return ["run", *made]


def main() -> None:
    """Launch the job."""
    try:
        load()
    except GroupScoresError as error:
        message, code = ending(error)
        print(message, file=sys.stderr)
        sys.exit(code)
    cli.main(run_arguments(sys.argv[1:], os.environ.get(IMAGE)))


if __name__ == "__main__":
    main()
