"""What the command line answers by one line, and the exit codes."""


class UsageError(Exception):
    """What was typed or configured cannot be run; the message is the one line that the user sees."""


TERMINATED = 128 + 15  # what a shell reports of a process that SIGTERM has ended


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""
