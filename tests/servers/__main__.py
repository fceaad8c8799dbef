"""`python -m tests.servers`: get what the servers need, before the first test."""

import sys

from tests.servers.artifacts import main

sys.exit(main())
