"""The command line: ``python -m sa1b_fastdecode``.

A command is a module here: ``add`` declares its arguments, ``run`` does the work and returns the
exit status. What the user can put right is raised as ``CommandError`` and ends as one line on
stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sa1b_fastdecode.cli import bench, demo, index, info, run, sample, verify, view
from sa1b_fastdecode.cli.common import CommandError

__all__ = ["main"]

# In the order in which the help lists them.
_COMMANDS = (info, demo, view, index, verify, bench, sample, run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, 0 for success."""
    arguments = _build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    return status


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sa1b_fastdecode",
        description="SA-1B's masks: look at them, check them, measure how fast they load.",
        epilog="examples:\n"
        "  python -m sa1b_fastdecode info\n"
        "  python -m sa1b_fastdecode demo\n"
        "  python -m sa1b_fastdecode sample sa_000000.tar --images 16 --tar\n"
        "  python -m sa1b_fastdecode view sa_000000.tar sa_1 --ids\n"
        "  python -m sa1b_fastdecode verify /data/sa1b --images\n"
        "  python -m sa1b_fastdecode bench /data/sa1b\n"
        "  python -m sa1b_fastdecode run evaluate.py --arguments of the script\n"
        "  python -m sa1b_fastdecode COMMAND --help\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser
