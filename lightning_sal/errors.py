"""What the command line answers by one line, how a line is kept one, and the exit codes."""

import os
import re
import unicodedata

UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, and the two other ends of lines


class UsageError(Exception):
    """What was typed or configured cannot be run; the message is the one line that the user sees."""


INTERRUPTED, TERMINATED = 128 + 2, 128 + 15  # what a shell reports of a process that Ctrl-C, SIGTERM has ended


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def printable(text: str) -> str:
    """A text that holds what others have written, as one line that any terminal shows and does not obey.

    Ends of lines, control characters and what no encoding has are written as escapes.
    """
    return "".join(c if unicodedata.category(c) not in UNSEEN else repr(c)[1:-1] for c in text)


# What a rank hears whose collective call another one has left: of gloo, and of NCCL.
_LOST = re.compile(
    r"gloo/transport/|Connection (closed|reset) by peer|NCCL communicator was aborted|remote process exited"
)


def runtime_error_line(error: RuntimeError) -> str | None:
    """One line for what libraries raise as a RuntimeError and a user can mend; None of any other, which is a bug."""
    text = str(error)
    if text.startswith("SaveConfigCallback expected "):
        path = text.removeprefix("SaveConfigCallback expected ").partition(" to NOT exist")[0]
        return f"{path} is there already, of an earlier run, and is not overwritten"
    if text.startswith("Error(s) in loading state_dict"):
        lines = " ".join(text.split("\n\t", 2)[1:2])
        return f"the checkpoint does not fit the model of this run; the first of {text.count(chr(10))} faults: {lines}"
    if _LOST.search(text):
        rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK", "0")  # that among all nodes, where it is told
        return f"rank {rank}: stopped, since another rank has ended; what ended that one stands in a line of its own"
    return None


def one_line(error: BaseException) -> str:
    """What an error says, without ends of lines; the file first where the system names one."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip()
    if text.startswith("Caught ") and "Original Traceback" in text:  # from a worker of a DataLoader
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__
