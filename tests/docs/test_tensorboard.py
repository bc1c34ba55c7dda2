"""`tensorboard --logdir runs` shows a run."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from tests.docs.pages import in_checkout


@in_checkout
def test_tensorboard_finds_the_runs(workspace):
    command = [Path(sys.executable).with_name("tensorboard"), "--logdir", "runs", "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = filter(None, (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stderr))
        address = next(found)[0]
        runs = json.load(urlopen(f"{address}data/runs", timeout=60))
    finally:
        server.kill()
        server.wait()
    assert runs == ["sft/version_0"]
