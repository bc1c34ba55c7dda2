"""Tasks by name: those of the package, and those of a file or a module."""

import sys

import pytest

from lightning_sal.tasks import SOD, TASKS, get_task, load_task, register

FILE = """
from lightning_sal.tasks import TagRegions
from lightning_sal.tasks.blocks import read_blocks

COD = TagRegions(name="cod", title="camouflaged objects", instruction="What hides?", brief="Name it.", tag="rg")
"""


@pytest.fixture
def place(tmp_path):
    """A file of one task; its module is unknown afterwards."""
    path = tmp_path / "own_task.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("own_task", None)


def test_a_known_task_is_found_by_its_name():
    assert load_task("sod") is get_task("sod") is SOD
    with pytest.raises(
        ValueError,
        match=r"unknown task 'sot': use one of sod, sis, cosod, vqa, .*, or your own as FILE.py:NAME",
    ):
        load_task("sot")


@pytest.mark.parametrize("name", ["", ":COD"])
def test_a_task_of_a_file_is_known_from_then_on(place, name):
    task = load_task(f"{place}{name}")
    assert TASKS["cod"] is task
    assert load_task("cod") is load_task(f"{place}:COD") is task  # the file is not run twice


def test_a_task_of_a_module(place, monkeypatch):
    monkeypatch.syspath_prepend(place.parent)
    assert load_task("own_task:COD") is load_task(str(place))
    with pytest.raises(ValueError, match=r"no module 'nowhere': give a file, as FILE.py:NAME, or set PYTHONPATH"):
        load_task("nowhere.tasks:COD")


def test_what_a_file_has_not_is_named(place):
    with pytest.raises(ValueError, match=r"own_task.py has no task 'COT'; there is COD"):
        load_task(f"{place}:COT")
    with pytest.raises(ValueError, match="has no task 'read_blocks'"):  # of another kind
        load_task(f"{place}:read_blocks")
    with pytest.raises(FileNotFoundError, match=r"absent.py: there is no such file"):
        load_task("absent.py:COD")


def test_several_tasks_of_a_file_are_told_apart_by_name(place):
    place.write_text(f'{FILE}\nOTHER = TagRegions(name="other", title="o", instruction="?", tag="rg")\n')
    with pytest.raises(ValueError, match=r"own_task.py has 2 tasks: name one, as .*own_task.py:COD"):
        load_task(str(place))
    assert load_task(f"{place}:OTHER").name == "other"
    assert "cod" not in TASKS


def test_a_file_that_fails_is_run_anew(place):
    place.write_text("raise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"):
        load_task(str(place))
    place.write_text(FILE)
    assert load_task(str(place)).name == "cod"


def test_names_of_tasks(place):
    task = load_task(str(place))
    assert register(task) is task
    with pytest.raises(ValueError, match="there is another one of that name"):
        register(type(task)(name="cod", title="another", instruction="?", tag="rg"))
    with pytest.raises(ValueError, match="a name is of letters, digits and _ alone"):
        register(type(task)(name="a/b", title="another", instruction="?", tag="rg"))
