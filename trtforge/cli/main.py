"""The entry point: a table of commands, loaded when called, and the one boundary for errors."""

import contextlib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from trtforge import __version__
from trtforge.cli.streams import (
    EXIT_PIPE,
    drop_output,
    is_output_error,
    open_closed_streams,
    say_stopped,
)
from trtforge.errors import (
    EXIT_BUG,
    EXIT_MISSING,
    EXIT_USAGE,
    ForgeError,
    Problem,
)
from trtforge.interrupts import stop_on_signals

COMMANDS: dict[str, tuple[str, str]] = {
    "build": (
        "trtforge.cli.commands.build:build",
        "Build a recipe: clean, type, build, verify, bundle.",
    ),
    "init": ("trtforge.cli.commands.init:init", "Write a commented recipe for a model."),
    "plan": ("trtforge.cli.commands.plan:plan", "Say what build would do, and why."),
    "verify": (
        "trtforge.cli.commands.verify:verify",
        "Compare a bundle, engine or ONNX file.",
    ),
    "attest": (
        "trtforge.cli.commands.attest:attest",
        "Say which types a model really computes in.",
    ),
    "debug": (
        "trtforge.cli.commands.debug:debug",
        "Find the fewest nodes that must be wider.",
    ),
    "inspect": (
        "trtforge.cli.commands.inspect:inspect",
        "Say what a file or bundle is, without a GPU.",
    ),
    "diff": (
        "trtforge.cli.commands.diff:diff",
        "Show what changed between two ONNX files or bundles.",
    ),
    "optimize": (
        "trtforge.cli.commands.optimize:optimize",
        "Clean up and fuse an ONNX graph, with proof.",
    ),
    "calibrate": (
        "trtforge.cli.commands.calibrate:calibrate",
        "Measure activation ranges of a recipe or a model.",
    ),
    "quantize": (
        "trtforge.cli.commands.quantize:quantize",
        "Quantize an ONNX file: Q/DQ, casts, reasons.",
    ),
    "cast": (
        "trtforge.cli.commands.cast:cast",
        "Cast an ONNX file to FP16 or BF16 by measured ranges.",
    ),
    "calib": (
        "trtforge.cli.commands.calib:calib",
        "Show, lint, diff, merge, convert and apply calibration caches.",
    ),
    "bench": (
        "trtforge.cli.commands.bench:bench",
        "Measure latency and throughput.",
    ),
    "preflight": (
        "trtforge.cli.commands.preflight:preflight",
        "Say whether a bundle's engines will load, without loading them.",
    ),
    "migrate": (
        "trtforge.cli.commands.migrate:migrate",
        "Turn a trtexec or Polygraphy command into a recipe.",
    ),
    "profiles": (
        "trtforge.cli.commands.profiles:profiles",
        "Suggest and check optimization profiles.",
    ),
    "schema": ("trtforge.cli.commands.schema:schema", "Print the JSON Schema of recipes."),
    "doctor": ("trtforge.cli.commands.doctor:doctor", "Say what this machine can build and run."),
    "cache": ("trtforge.cli.commands.cache:cache", "List, size or prune the store of results."),
}
"""Command name -> ("module:attribute", one line of help)."""


class CommandTable(click.Group):
    """A group that imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what interrupts it is said here, before click makes it its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            return say_stopped(error)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 ok, 1 a bug, 2 usage or recipe, 3 something is missing here, 4 graph"
    " or build refused, 5 parity or attestation failed, 6 budget failed, 7 integrity,"
    " 130 interrupted, 143 by SIGTERM, 129 by SIGHUP.",
)
@click.version_option(__version__, "-V", "--version", prog_name="trtforge")
def cli() -> None:
    """Turn a trained model into a TensorRT engine that provably computes the same function."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the status of design.md section 4."""
    arguments = list(sys.argv[1:] if args is None else args)
    open_closed_streams()
    stop_on_signals()
    status = _run(arguments)
    drop_output()
    if status > 128:
        import os

        os._exit(status)  # without waiting for threads: engines that still build die with us
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    try:
        return _run_command(arguments)
    except (BrokenPipeError, SystemExit):  # click turns a broken pipe into SystemExit(1)
        return EXIT_PIPE
    except OSError as error:
        if not is_output_error(error):
            raise
        reason = error.strerror or str(error)
        with contextlib.suppress(OSError):  # stderr may be the one that is full
            sys.stderr.write(f"error[TF0301]: cannot write the output: {reason}\n")
        return EXIT_MISSING


def _run_command(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        status = cli.main(arguments, prog_name="trtforge", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except KeyboardInterrupt as error:  # before the command ran, or after
        return say_stopped(error)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return EXIT_USAGE
    except click.ClickException as error:
        return _show_usage_error(error, as_json)
    except ForgeError as error:
        from trtforge.cli.console import show_error

        return show_error(error, as_json=as_json)
    except MemoryError as error:
        from trtforge.cli.console import show_problems

        reason = str(error) or "an allocation failed"
        hint = "use smaller shapes, a smaller batch or fewer samples, or a machine with more memory"
        problem = Problem("TF0304", f"out of memory: {reason}", hint)
        show_problems([problem], EXIT_MISSING, as_json=as_json)
        return EXIT_MISSING
    except Exception as error:  # the boundary: whatever reaches it is a bug of ours
        if isinstance(error, BrokenPipeError) or (
            isinstance(error, OSError) and is_output_error(error)
        ):
            raise
        return _show_bug(error, as_json)
    return status if isinstance(status, int) else 0


def _show_usage_error(error: click.ClickException, as_json: bool) -> int:
    from trtforge.cli.console import show_problems

    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    show_problems(
        [Problem("TF0100", error.format_message().rstrip("."), hint)], EXIT_USAGE, as_json=as_json
    )
    return EXIT_USAGE


def _show_bug(error: Exception, as_json: bool) -> int:
    import os
    import traceback

    from trtforge.cli.console import show_problems

    if os.environ.get("TRTFORGE_TRACEBACK"):
        traceback.print_exception(error)
    hint = "this is a bug in trtforge; TRTFORGE_TRACEBACK=1 shows where, please report it"
    message = f"{type(error).__name__}: {error}"
    show_problems([Problem("TF0001", message, hint)], EXIT_BUG, as_json=as_json)
    return EXIT_BUG


if __name__ == "__main__":
    main()
