"""Real servers for the tests: child processes on free loopback ports, their data in a folder.

A module a server; what they share is in `process`, what they need from outside in `artifacts`.
Nothing here knows the pipeline. `python -m tests.servers` fetches what the servers need.
"""
