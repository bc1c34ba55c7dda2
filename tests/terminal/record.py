"""Run a command in a terminal of so many columns, and print what is left on its screen.

python -m tests.terminal.record 80 -- uv run lightning fit --config conf/quickstart.yaml
"""

import os
import signal
import sys
import termios
import time
from pathlib import Path

import pexpect
import pyte

from tests.distributed.processes import process

ROWS = 60


class Screen:
    """What a terminal shows of what was written to it, and what has scrolled away above."""

    def __init__(self, columns):
        self.screen = pyte.HistoryScreen(columns, ROWS, history=100_000)
        self.stream = pyte.ByteStream(self.screen)

    def feed(self, data):
        """Take what was written."""
        self.stream.feed(data)

    @property
    def lines(self):
        """All lines, from the first, without spaces at their ends."""
        above = ["".join(line[at].data for at in range(self.screen.columns)) for line in self.screen.history.top]
        lines = [line.rstrip() for line in (*above, *self.screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Terminal:
    """`lightning ...` in a terminal, in a process that has all imported already.

    Args:
        argv: What comes after `lightning`.
        folder: Where it runs.
        columns: Of the terminal.
    """

    def __init__(self, argv, folder, columns=80):
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (ROWS, columns))
        self.screen = Screen(columns)
        self.child = process(_lightning, os.ttyname(self.slave), str(folder), argv)
        self.child.start()
        self.seen = ""

    def wait_for(self, text, seconds=300):
        """Read until it has written a text."""
        start = time.monotonic()
        while text not in self.seen:
            if not self.child.is_alive() or time.monotonic() - start > seconds:
                self.child.kill()
                raise AssertionError(f"no {text!r} in:\n{self.seen}")
            self._read()

    def press_ctrl_c(self):
        """What the terminal sends its foreground processes."""
        os.write(self.master, b"\x03")

    def terminate(self):
        """What `kill` and schedulers send."""
        os.kill(self.child.pid, signal.SIGTERM)

    def end(self, seconds=300):
        """Read until it has ended; its exit code."""
        start = time.monotonic()
        while self.child.is_alive() and time.monotonic() - start < seconds:
            self._read()
        ended = not self.child.is_alive()
        self.child.kill()
        self.child.join()
        self._read()
        os.close(self.slave)
        os.close(self.master)
        assert ended, f"still there after {seconds} s:\n{self.seen}"
        return self.child.exitcode

    def _read(self):
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, 1 << 16):
                self.screen.feed(data)
                self.seen += data.decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.05)


def _lightning(terminal, folder, argv):
    os.setsid()
    there = os.open(terminal, os.O_RDWR)  # the first that a session opens is its own
    for number in (0, 1, 2):
        os.dup2(there, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores, and so its children
    os.environ["TERM"] = "xterm-256color"
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        os.environ.pop(name, None)
    os.chdir(folder)
    sys.path.insert(0, folder)
    from lightning_sal.cli import main

    sys.exit(main(argv))


def record(columns, command, path=None):
    """The lines that a command leaves in a terminal; as bytes in a file, too, where one is named."""
    child = pexpect.spawn(command[0], command[1:], dimensions=(ROWS, columns), timeout=None)
    data = b"".join(iter(lambda: _chunk(child), b""))
    if path:
        Path(path).write_bytes(data)
    screen = Screen(columns)
    screen.feed(data)
    return screen.lines


def _chunk(child):
    try:
        return child.read_nonblocking(1 << 16)
    except pexpect.EOF:
        return b""


if __name__ == "__main__":
    print("\n".join(record(int(sys.argv[1]), sys.argv[sys.argv.index("--") + 1 :])))
