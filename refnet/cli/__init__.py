"""The command line: ``refnet demo``, ``predict``, ``batch``, ``summary``, ``convert``, ``bench``, ``selfcheck``,
``golden``, ``compare``, ``diagnose``, ``plot``, ``explain`` and ``completion``.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 bits or values differ or any other failure,
2 usage, 3 device, 4 weights that cannot be read or written, 5 images, goldens and other inputs, 130 interrupted. Where
the reader of stdout has left, the rest is discarded, and the exit code is that of the whole output.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import refnet
from refnet.cli import (
    batch,
    bench,
    compare,
    completion,
    convert,
    demo,
    diagnose,
    explain,
    golden,
    plot,
    predict,
    selfcheck,
    summary,
)
from refnet.cli.console import Output, say
from refnet.cli.failures import FileError, report
from refnet.errors import ConfigError, RefnetError
from refnet.resources import for_a_command
from refnet_kernels.system import interrupts

_COMMANDS = {
    "demo": (demo, "read handwritten digits with a network that comes with refnet"),
    "predict": (predict, "the most probable classes of images"),
    "batch": (batch, "predictions or features of many images, a row for each"),
    "summary": (summary, "the layers and parameters of a network"),
    "convert": (convert, "write weights in another format"),
    "bench": (bench, "how fast a network runs on this machine"),
    "selfcheck": (selfcheck, "compare this machine's bits with the published ones"),
    "diagnose": (diagnose, "name the porting mistake that reproduces a port's outputs"),
    "golden": (golden, "record a network's end points in a file, or compare them with a record"),
    "plot": (plot, "pictures of a network and of what it computes"),
    "compare": (compare, "find where a network that runs elsewhere diverges, layer by layer"),
    "explain": (explain, "the cause and the cure of an error, with an example"),
    "completion": (completion, "write what completes refnet's commands and options in a shell"),
}

_EPILOG = """\
examples:
  refnet demo --save play      # and files for the other commands
  refnet predict cat.jpg --weights resnet_v2_50.ckpt
  refnet summary resnet_v2_50

exit codes: 0 done, 1 bits differ or any other failure, 2 usage, 3 device, 4 weights, 5 images or goldens,
130 interrupted
"""


#: Characters of what the parser says; it repeats whole arguments.
_LONGEST = 500


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."
        raise ConfigError(f"{text} (see {self.prog} --help).")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(_versions())
        parser.exit()


def _versions() -> str:
    from importlib.metadata import version

    from refnet_kernels.contract import CONTRACT_VERSION

    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"refnet {refnet.__version__} (arithmetic contract {CONTRACT_VERSION}, "
        f"numba {version('numba')}, numpy {version('numpy')}, Python {python})"
    )


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="refnet",
        description="The forward pass of TF-Slim's ResNets, with every bit defined.",
        epilog=_EPILOG,
        formatter_class=layout,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="versions of refnet and of what its bits depend on")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (command, text) in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=command.EPILOG)
        sub.formatter_class, sub.allow_abbrev = layout, False
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, of_all=parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; by default the process's.

    Returns
    -------
    int
        The exit code.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Output(stdout, "standard output"), Output(stderr, "standard error")
    log, images = logging.getLogger("refnet"), logging.getLogger("refnet.images")
    said, level = _Said(), images.level
    log.addHandler(said)
    images.setLevel(logging.INFO)
    try:
        interrupts.answered_by_exceptions()
        code = _run(arguments)
        sys.stdout.flush()
    except OSError as error:  # of stdout itself
        return report(FileError(error, RefnetError.exit_code), as_json=False)
    except KeyboardInterrupt:
        say("interrupted")
        return interrupts.INTERRUPTED
    finally:
        log.removeHandler(said)
        images.setLevel(level)
        sys.stdout, sys.stderr = stdout, stderr
    return code


class _Said(logging.Handler):
    """What refnet logs, as the other lines for the user: warnings, and once each what is done with images."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._noted: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            say(f"warning: {record.getMessage()}")
        elif record.name == "refnet.images" and record.msg not in self._noted:
            self._noted.add(record.msg)
            say(f"note: {record.getMessage()} (said once)")


def _run(arguments: list[str]) -> int:
    """Run the command, report its errors, and return the exit code."""
    as_json = "--json" in arguments
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            parser = _parser()
            if not arguments:
                parser.print_help(sys.stderr)
                return ConfigError.exit_code
            options = parser.parse_args(arguments)
            with for_a_command:
                code: int = options.run(options)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except RefnetError as error:
        return report(error, as_json)
    except OSError as error:
        return report(FileError(error, RefnetError.exit_code), as_json)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")
