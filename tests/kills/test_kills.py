"""Fits that are killed go on to the weights and scalars of those that are not."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_handful_of_kills():
    """In a process of its own: it forks, which the threads of the tests' process would not survive."""
    command = [sys.executable, "-m", "tests.kills.run", "--kills", "9", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 kills, 0 with a difference" in done.stdout
    assert "exit code  143" in done.stdout
    assert "exit code   -9" in done.stdout
