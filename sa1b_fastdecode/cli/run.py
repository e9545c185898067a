"""``run``: a script in which pycocotools.mask is ours."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from sa1b_fastdecode.cli.common import CommandError, Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "run",
        "run a script whose pycocotools.mask is ours",
        "Run a Python script as it is, with sa1b_fastdecode.mask in the place of\n"
        "pycocotools.mask.",
        ["evaluate.py --arguments of the script"],
    )
    command.add_argument("script", type=Path, help="the script")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="what is passed to it")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sa1b_fastdecode.mask import install

    if not arguments.script.is_file():
        raise CommandError(f"cannot read {arguments.script}: no such file")
    install()
    # What Python itself does for `python script.py arguments`.
    sys.argv = [str(arguments.script), *arguments.arguments]
    sys.path[0] = str(arguments.script.resolve().parent)
    runpy.run_path(str(arguments.script), run_name="__main__")
    return 0
