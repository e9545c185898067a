"""``index``: where the images of tars lie, found once and saved."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from sa1b_fastdecode.cli.common import (
    CommandError,
    Commands,
    add_command,
    find_files,
    format_table,
    non_negative,
)


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "index",
        "index tars, so that their images can be read without extracting them",
        "Scan tars, in parallel, and save where each image and its annotations lie. Datasets do\n"
        "so when they need it; done before, training starts at once. A tar that has not changed\n"
        "is not scanned again. Damaged and unpaired members are listed.",
        ["sa_000020.tar", "/data/sa1b --workers 8", "/data/sa1b/*.tar --index-dir ~/indexes"],
    )
    command.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a tar, or a folder of tars"
    )
    command.add_argument(
        "--index-dir", type=Path, metavar="DIR", help="save here; default: beside each tar"
    )
    command.add_argument(
        "--workers", type=non_negative, metavar="N", help="processes; default: one for each core"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sa1b_fastdecode.data.tar_index import index_tars

    tars = [file.path for file in find_files(arguments.paths) if file.is_tar]
    if not tars:
        raise CommandError("there are no tars to index")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # an index that could not be saved
            indexes = index_tars(
                tars,
                index_dir=arguments.index_dir,
                num_workers=arguments.workers,
                progress=sys.stderr.isatty(),
            )
    except (OSError, RuntimeError, RuntimeWarning) as error:
        raise CommandError(str(error)) from error
    rows = [("tar", "images", "problems")]
    rows += [(index.path, f"{len(index):,}", f"{len(index.problems):,}") for index in indexes]
    if len(indexes) > 1:
        num_problems = sum(len(index.problems) for index in indexes)
        rows.append(("all", f"{sum(map(len, indexes)):,}", f"{num_problems:,}"))
    print(format_table(rows, "<>>"))
    for index in indexes:
        for problem in index.problems:
            print(f"{index.path}: {problem}")
    return 0
