"""A process for each row, so that what one leaves on the GPU, or breaks, is no other's; and a time limit for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rows.row import Values


def begin(folders: list[Path], load: list[str]) -> None:
    """Have the processes to come forked from one that has imported everything but not touched the GPU.

    Args:
        folders: Where modules are found.
        load: Modules to import.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking for a GPU otherwise keeps what is forked from using it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    multiprocessing.set_start_method("forkserver")
    multiprocessing.get_context().set_forkserver_preload(load)


def measured(
    measure: Callable[[Namespace], Values], given: Mapping[str, Any], limit: float, log: Path
) -> dict[str, Any]:
    """What a process measures.

    Args:
        measure: Called there.
        given: Its argument.
        limit: Seconds after which it is ended.
        log: File that takes what it prints, and why it failed.

    Returns:
        {"values": name -> value} or {"failed": why}, and the "seconds" that it took.
    """
    start = time.perf_counter()
    found = _found(measure, given, limit, log)
    if "forked subprocess" in found.get("failed", ""):  # some package touched the GPU when it was imported
        multiprocessing.set_start_method("spawn", force=True)
        found = _found(measure, given, limit, log)
    return found | {"seconds": round(time.perf_counter() - start, 2)}


def _found(measure: Callable[[Namespace], Values], given: Mapping[str, Any], limit: float, log: Path) -> dict[str, Any]:
    answers, answer = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_work, args=(measure, dict(given), answer, str(log)), daemon=True)
    process.start()
    answer.close()
    try:
        if answers.poll(limit):
            return answers.recv()
        return {"failed": f"took longer than {limit:.0f} s"}
    except EOFError:
        process.join()
        return {"failed": f"its process ended with {process.exitcode} (see {log})"}
    finally:
        process.kill()
        process.join()


def _work(measure: Callable[[Namespace], Values], given: dict[str, Any], answer: Connection, log: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this process
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(to, stream)
    try:
        if warm := sys.modules.get("rows.warm"):
            warm.torch.set_num_threads(warm.THREADS)
        answer.send({"values": measure(Namespace(**given))})
    except Exception as error:
        traceback.print_exc()
        answer.send(
            {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} (see {log})"}
        )
