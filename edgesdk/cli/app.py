"""The command-line application: its commands, the flags they share, one way to run and to fail."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO

import typer

from edgesdk.cli.console import (
    Answer,
    RichProgress,
    error_data,
    print_answer,
    print_error,
    quiet_libraries,
    split_stdout,
)
from edgesdk.errors import EdgeSDKError, UsageError
from edgesdk.progress import watching

app = typer.Typer(
    name="edgesdk",
    help="Compile a trained PyTorch network for a device, under a budget, with proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
devices = typer.Typer(help="What is known about each device, and from where.", no_args_is_help=True)
app.add_typer(devices, name="devices")
measurements = typer.Typer(help="What was measured on devices, kept here.", no_args_is_help=True)
app.add_typer(measurements, name="measurements")


_INTERRUPTED = 130
_READER_GONE = 141  # what a shell shows for a process that SIGPIPE ended

Command = Callable[..., Answer]

_JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print exactly one JSON object to stdout; all else to stderr."),
]
_QuietFlag = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
_DebugFlag = Annotated[bool, typer.Option("--debug", help="Show tracebacks and warnings.")]


def command(group: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Register a command under a name, with the three flags that every command has.

    ``run`` reads the flags itself, because they also govern what happens before a command line
    is understood; here they are declared, so that they are parsed and documented.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def without_flags(**arguments: Any) -> Answer:
            for flag in ("json", "quiet", "debug"):
                arguments.pop(flag)
            return function(**arguments)

        own = inspect.signature(function, eval_str=True)
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for name, kind in (("json", _JsonFlag), ("quiet", _QuietFlag), ("debug", _DebugFlag))
        ]
        parameters = [*own.parameters.values(), *flags]
        without_flags.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        without_flags.__annotations__ = {p.name: p.annotation for p in parameters}
        group.command(name)(without_flags)
        return function

    return register


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every outcome is printed exactly once."""
    if int(os.environ.get("RANK", "0")) > 0:
        from edgesdk.workers.distributed import rank, serve

        if rank() is not None:
            serve()
            return 0
    as_json, debug = "--json" in arguments, "--debug" in arguments
    asks_help = "--help" in arguments or not arguments
    signal.signal(signal.SIGTERM, _interrupt)
    if not debug:
        quiet_libraries()
    stdout = sys.stdout if asks_help else split_stdout()  # typer prints help to the former
    try:
        return _main(arguments, stdout, as_json=as_json)
    except BrokenPipeError:
        # Whoever read our output has gone, as in "edgesdk devices list | head -1".
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return _READER_GONE
    except EdgeSDKError as problem:
        print_error(error_data(problem), stdout, as_json=as_json, debug=debug)
        return problem.exit_code
    except (KeyboardInterrupt, typer.Abort):
        text = "interrupted; finished steps are kept, run the same command again to go on"
        data = {"status": "error", "error": "Interrupted", "exit_code": 130, "message": text}
        print_error(data, stdout, as_json=as_json, debug=debug)
        return _INTERRUPTED
    except Exception as problem:  # noqa: BLE001 - the last stop: our own bug, said as such
        text = f"a bug in edgesdk: {type(problem).__name__}: {problem}"
        data = {"status": "error", "error": "Bug", "exit_code": 1, "message": text}
        print_error(data, stdout, as_json=as_json, debug=debug)
        if not debug:
            sys.stderr.write("Run again with --debug for the traceback, and please report it.\n")
        return 1


def _main(arguments: Sequence[str], stdout: TextIO, *, as_json: bool) -> int:
    with RichProgress(quiet="--quiet" in arguments) as shown:
        watching.set(shown)
        try:
            answer: Any = app(list(arguments) or ["--help"], "edgesdk", standalone_mode=False)
        except typer.Exit as leave:
            return leave.exit_code
        except typer.TyperException as problem:
            found = problem.format_message() or "a command is missing"
            raise UsageError(found, next_step=_help_hint(problem)) from None
    if answer == _INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    if isinstance(answer, Answer):
        print_answer(answer, stdout, as_json=as_json)
        return answer.exit_code
    return int(answer or 0)


def _help_hint(problem: typer.TyperException) -> str:
    context = getattr(problem, "ctx", None)
    path = context.command_path if context is not None else "edgesdk"
    return f"see '{path} --help'"


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
