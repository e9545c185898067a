"""``info``: the version and what can run here."""

from __future__ import annotations

import argparse

from sa1b_fastdecode.cli.common import CommandError, Commands, format_table


def add(commands: Commands) -> None:
    command = commands.add_parser("info", help="show the version and what can run here")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from sa1b_fastdecode import __version__, backends

    print(f"sa1b_fastdecode {__version__}, torch {torch.__version__}\n")
    rows = [("backend", "device", "available", "detail")]
    for backend in backends():
        rows.append(
            (backend.name, backend.device, "yes" if backend.available else "no", backend.detail)
        )
    print(format_table(rows, "<<<<"))
    print(f"\nactive on cpu: {find_backend('cpu')}, {torch.get_num_threads()} threads")
    return 0


def find_backend(device: str) -> str:
    """Return the name of the backend that serves ``device``."""
    from sa1b_fastdecode import active_backend

    try:
        return active_backend(device)
    except (RuntimeError, ValueError) as error:  # one was forced that is not there
        raise CommandError(str(error)) from error
