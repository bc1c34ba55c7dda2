"""What the command line answers by one line, how a line is kept one, and the exit codes."""

import unicodedata

UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, and the two other ends of lines


class UsageError(Exception):
    """What was typed or configured cannot be run; the message is the one line that the user sees."""


TERMINATED = 128 + 15  # what a shell reports of a process that SIGTERM has ended


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def printable(text: str) -> str:
    """A text that holds what others have written, as one line that any terminal shows and does not obey.

    Ends of lines, control characters and what no encoding has are written as escapes.
    """
    return "".join(c if unicodedata.category(c) not in UNSEEN else repr(c)[1:-1] for c in text)
