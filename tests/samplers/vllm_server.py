"""A real vLLM server as a process, by the very command that the sampler's errors name."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

START_S = 900


class LiveServer:
    """vLLM on a free port of loopback.

    Args:
        vllm: The executable.
        command: What `serve_command` says, with what follows it.
        log: File for what it prints, added to at each start.
    """

    def __init__(self, vllm, command, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log, self.process = f"http://127.0.0.1:{self.port}", Path(log), None
        self.command = f"exec env {command} --host 127.0.0.1 --port {self.port}"
        own = ("PYTHONPATH", "VIRTUAL_ENV")  # of the tests' environment
        self.environment = {name: value for name, value in os.environ.items() if name not in own} | {
            "PATH": f"{Path(vllm).parent}:{os.environ['PATH']}",
            "VLLM_SERVER_DEV_MODE": "1",  # /sleep and /wake_up, which CPUs take without --enable-sleep-mode
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def start(self):
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                self.command,
                shell=True,
                cwd=self.log.parent,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self):
        """Until it is ready to answer."""
        deadline = time.monotonic() + START_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"vLLM did not start: {self.command}\n{self.log.read_text()[-3000:]}")
            time.sleep(1)

    def ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self):
        """It and all its processes, as a machine that goes down."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
