"""``sample``: generated images and annotations in SA-1B's layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from sa1b_fastdecode.cli.common import CommandError, Commands, add_command, non_negative


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "sample",
        "write generated images and annotations in SA-1B's layout",
        "Write generated sa_<id>.jpg and sa_<id>.json with the statistics of SA-1B:\n"
        "to a folder, or with --tar to a tar as Meta lays it out.",
        ["folder --images 16", "sa_000000.tar --images 16 --tar"],
    )
    command.add_argument("output", type=Path, help="the folder, or the tar with --tar")
    command.add_argument("--images", type=non_negative, default=4, metavar="N", help="default: 4")
    command.add_argument("--seed", type=non_negative, default=0, metavar="S", help="default: 0")
    command.add_argument("--tar", action="store_true", help="write one tar")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sa1b_fastdecode.sample import write_folder, write_tar

    write = write_tar if arguments.tar else write_folder
    try:
        write(arguments.output, arguments.images, arguments.seed)
    except ImportError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
    print(f"wrote {arguments.images} images and their annotations to {arguments.output}")
    return 0
