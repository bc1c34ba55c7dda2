"""What the command line answers by one line and exit code 2."""


class UsageError(Exception):
    """What was typed or configured cannot be run; the message is the one line that the user sees."""
