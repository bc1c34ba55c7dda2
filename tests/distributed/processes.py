"""Runs the same work by one and by several processes, which find each other as under torchrun (gloo, on the CPU)."""

import multiprocessing
import os
import socket
import time
from contextlib import closing

import torch

from lightning_sal.policy.policy import Policy
from tests.modules.parts import POLICY


def in_processes(work, counts, *args):
    """Call `work(world_size, rank, *args)` in as many processes as each of `counts` says."""
    # A process of its own: it forks, which the threads of the tests' process would not survive.
    child = multiprocessing.get_context("spawn").Process(target=_fork, args=(work, counts, args))
    child.start()
    child.join(timeout=400)
    child.kill()
    assert child.exitcode == 0


def _fork(work, counts, args):
    torch.set_num_threads(1)
    Policy(POLICY)  # loads what is slow to import, once for all
    context = multiprocessing.get_context("fork")
    for count in counts:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [context.Process(target=_rank, args=(work, count, rank, port, args)) for rank in range(count)]
        for process in ranks:
            process.start()
        while any(process.is_alive() for process in ranks) and not any(process.exitcode for process in ranks):
            time.sleep(0.1)
        failed = any(process.exitcode for process in ranks)
        for process in ranks:
            process.kill() if failed else process.join()
        assert not failed


def _rank(work, count, rank, port, args):
    if count > 1:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": rank}
        where |= {"LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "tests"}
        os.environ.update({name: str(value) for name, value in where.items()})
    work(count, rank, *args)
