"""Processes beside that of the tests, alone or of a kind that find each other as under torchrun (gloo, on the CPU)."""

import multiprocessing
import os
import socket
import time
from contextlib import closing

import tests.forking  # noqa: F401

# Forks from a server that has no threads, which a fork of the tests' own process would not survive.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.distributed.warm"])


def process(work, *args):
    """A process that will call `work(*args)`, to be started; what is slow to import is there already."""
    return CONTEXT.Process(target=_as_here, args=(dict(os.environ), work, args))


def _as_here(environment, work, args):
    os.environ.clear()  # the server's, which are as old as it
    os.environ.update(environment)
    work(*args)


def in_processes(work, counts, *args):
    """Call `work(world_size, rank, *args)` in as many processes as each of `counts` says."""
    child = process(_fork, work, counts, args)
    child.start()
    child.join(timeout=400)
    child.kill()
    assert child.exitcode == 0


def _fork(work, counts, args):
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
