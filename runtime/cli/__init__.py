"""The command line: a client of the HTTP interface, and the few verbs that work on the machine itself."""

from runtime.cli.entry import app, main

__all__ = ["app", "main"]
