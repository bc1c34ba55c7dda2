"""What holds for every test, and by how many processes the suite is run."""

import os
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import settings

from lightning_sal.tasks import TASKS
from tests.cli_parts import CONFIG
from tests.families import FAMILIES

settings.register_profile("shared cores", deadline=None)  # an example that waits for a core is no fault
settings.load_profile("shared cores")
os.environ.pop(
    "UV_RUN_RECURSION_DEPTH", None
)  # commands are printed alike, whether `uv run` has started the tests or not
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: there is a worker for each core
# Bytecode is kept even where the environment says otherwise, since each process would compile every library anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for the whole suite; what is named starts sooner without, as each worker has to import everything."""
    return 0 if config.option.file_or_dir else 2


@pytest.fixture(autouse=True)
def _no_seed_left_behind():
    """`seed_everything` leaves its seed in the environment, where the strategies of later tests would take it up."""
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(autouse=True)
def _no_task_left_behind():
    """A task that is registered in a test is unknown to the next one."""
    known = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(known)


@pytest.fixture(autouse=True)
def _the_same_numbers_in_any_order():
    """What a test draws without a seed of its own does not depend on the tests before it."""
    import torch  # here, as the process that hands out the tests needs none

    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family_folder(request, tmp_path_factory):
    """The folder of a tiny random model: of each family of multimodal LLMs in turn."""
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A valid config in the folder in which the test runs, and a writer of others."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = CONFIG, name: str = "a.yaml") -> str:
        Path(name).write_text(textwrap.dedent(text))
        return name

    return write
