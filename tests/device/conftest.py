"""Tests that run on the pretended accelerator, in a process of their own.

A process that has the accelerator keeps it, and PyTorch and Lightning would choose it in every later test. So these tests
run where pytest was asked for nothing else. Where it was asked for more, a second pytest runs each file of them, and its
reports stand here, one a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.device import pretend

_HERE = Path(__file__).parent
_FILE = "PRETEND_REPORTS"  # environment variable: where the second pytest writes its reports
_KEY = pytest.StashKey[dict[str, list[pytest.TestReport]]]()


@pytest.fixture(autouse=True, scope="session")
def _accelerator():
    why = pretend.missing()
    if why is not None:
        pytest.skip(why)
    from tests.device import parts

    pretend.install()
    parts.register()


@pytest.fixture(autouse=True)
def _nothing_forgotten(_accelerator):
    """A broken rule fails its test, wherever it was caught."""
    pretend.rules.broken.clear()
    yield
    assert not pretend.rules.broken


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not item.path.is_relative_to(_HERE) or all(each.path.is_relative_to(_HERE) for each in item.session.items):
        return None
    found = item.config.stash.setdefault(_KEY, {})
    if item.nodeid not in found:
        of_file = [each.nodeid for each in item.session.items if each.path == item.path]
        found.update({test: [] for test in of_file} | _elsewhere(item.config, of_file))
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in found[item.nodeid] or [_lost(item)]:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the second pytest: hand the report over."""
    if _FILE in os.environ:
        with Path(os.environ[_FILE]).open("a") as file:
            file.write(json.dumps(report._to_json()) + "\n")


def _elsewhere(config: pytest.Config, tests: list[str]) -> dict[str, list[pytest.TestReport]]:
    """The reports of a second pytest, by test."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reports.jsonl"
        file.touch()
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        subprocess.run(command, cwd=config.rootpath, env={**os.environ, _FILE: str(file)}, stdout=subprocess.DEVNULL)
        found: dict[str, list[pytest.TestReport]] = {}
        for line in file.read_text().splitlines():
            report = pytest.TestReport._from_json(json.loads(line))
            if isinstance(report.longrepr, list):  # of a test that was skipped; JSON has no tuples
                report.longrepr = tuple(report.longrepr)
            found.setdefault(report.nodeid, []).append(report)
    return found


def _lost(item: pytest.Item) -> pytest.TestReport:
    why = f"the process of its own ended before this test did: run `pytest tests/{_HERE.name}` by itself to see why"
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
