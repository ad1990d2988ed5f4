"""The command line: the only place that prints and exits. app.py is the command, the other files its commands."""

from skillfactory.cli import begin, doctor, init, run, show  # each adds its commands to the app
from skillfactory.cli.app import app, main

__all__ = ["app", "begin", "doctor", "init", "main", "run", "show"]
