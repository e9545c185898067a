"""Where CUDA cannot be used: in forked processes."""

from __future__ import annotations

import multiprocessing

import torch
import torch.utils.data


def refuse_cuda_after_fork() -> None:
    """Raise RuntimeError where CUDA does not work; say what to do instead.

    That is in a child forked from a process that had used CUDA, and in every forked worker of a
    DataLoader: whether its parent has used CUDA by then is a matter of chance.
    """
    if not (_is_forked_worker() or torch.cuda._is_in_bad_fork()):
        return
    raise RuntimeError(
        "this process was forked, so it cannot use CUDA. In a worker of a DataLoader, pack the "
        "masks (sa1b_fastdecode.pack_rles) and return the RLEBatch; in the main process decode it: "
        "batch.to('cuda').decode(). Or give the DataLoader multiprocessing_context='spawn' or "
        "num_workers=0."
    )


def _is_forked_worker() -> bool:
    if torch.utils.data.get_worker_info() is None:
        return False
    # A process of the default context has no start method of its own.
    method = getattr(multiprocessing.current_process(), "_start_method", None)
    return (method or multiprocessing.get_start_method()) == "fork"
