"""The command itself: what it does with mistakes and signals. The commands are in the other files of this folder.

Exit codes: 0 done; 2 a mistake that the message says how to mend; 130 and 143 stopped by Ctrl-C or SIGTERM, with all
finished work kept; 1 a bug of ours, with a traceback.
"""

import signal
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from skillfactory import __version__
from skillfactory.errors import SkillFactoryError, StoppedError
from skillfactory.machine import report_nothing


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


class _Group(TyperGroup):
    """Turns what a user can get wrong, and signals, into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SkillFactoryError as error:
            from skillfactory.characters import clean

            stopped = isinstance(error, StoppedError)
            print(clean(str(error)) if stopped else f"Error: {clean(str(error))}", file=sys.stderr)
            raise typer.Exit(143 if stopped else 2) from None
        except (KeyboardInterrupt, _Terminated) as stop:
            print("Stopped; run the same command again to go on.", file=sys.stderr)
            raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None


# The panels that `--help` shows the commands in.
BEGIN, RUN, LOOK = "Begin", "Run", "Look"

app = typer.Typer(
    cls=_Group,
    name="skillfactory",
    help="Teach a language model to retry and reflect before RL, with nothing but its own samples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and the commit.")] = False,
) -> None:
    if version:
        from skillfactory.versions import commit

        print(f"skillfactory {__version__}" + (f" ({known})" if (known := commit()) else ""))
        raise typer.Exit


def main() -> None:
    """The `skillfactory` command."""

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may hold what a terminal's encoding does not have
            stream.reconfigure(errors="backslashreplace")
    report_nothing()
    signal.signal(signal.SIGTERM, terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` keeps its word
        signal.signal(signal.SIGHUP, terminate)
    try:
        app()
    except _Terminated:  # before a command has begun
        sys.exit(143)
