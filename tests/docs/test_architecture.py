"""The imports of the package keep the rules of docs/imports.py, and these rules find what breaks them."""

import re
from importlib import import_module
from pkgutil import resolve_name

import pytest
from markdown import markdown

from tests.docs.pages import ROOT, in_checkout

pytestmark = in_checkout


@pytest.fixture(scope="module", autouse=True)
def _docs_on_the_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield


@pytest.fixture(scope="module")
def imports(_docs_on_the_path):
    return import_module("imports")


@pytest.fixture
def complaints(imports, tmp_path):
    """Writes a package of the given files and says what breaks a rule in it."""

    def check(files):
        for name, text in files.items():
            path = tmp_path / "lightning_sal" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(imports.broken(imports.read_imports(tmp_path / "lightning_sal")))

    return check


def test_the_package_keeps_the_rules(imports):
    assert list(imports.broken(imports.read_imports(imports.PACKAGE))) == []


def test_imports_that_go_one_way_break_no_rule(complaints):
    assert not complaints(
        {
            "samples.py": "import torch\n",
            "objectives/loss.py": "import math, torch.nn.functional\nfrom lightning_sal.objectives import mean\n",
            "objectives/mean.py": "from torch import Tensor\n",
            "modules/sft.py": "import lightning\nfrom lightning_sal.objectives.loss import loss\n",
        }
    )


@pytest.mark.parametrize(
    ("hidden", "line"),
    [
        ("from lightning_sal.tasks.b import B\n", "at the head"),
        ("def f():\n    from lightning_sal.tasks import b\n", "in a function"),
        ("if TYPE_CHECKING:\n    import lightning_sal.tasks.b\n", "for types alone"),
    ],
)
def test_a_circle_of_files_is_found_wherever_its_imports_stand(complaints, hidden, line):
    (found,) = complaints({"tasks/a.py": hidden, "tasks/b.py": "from lightning_sal.tasks.a import A\n"})
    assert found == "these files import each other in a circle: lightning_sal.tasks.a, lightning_sal.tasks.b", line


def test_a_circle_of_rooms_is_found_where_no_two_files_import_each_other(complaints):
    (found,) = complaints(
        {
            "tasks/a.py": "from lightning_sal.datasets.b import B\n",
            "datasets/b.py": "",
            "datasets/c.py": "from lightning_sal.pages.d import D\n",
            "pages/d.py": "from lightning_sal.tasks.e import E\n",
            "tasks/e.py": "",
        }
    )
    assert "the rooms datasets, pages, tasks import each other" in found
    assert "lightning_sal.pages.d -> lightning_sal.tasks.e" in found


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("objectives/a.py", "import numpy\n", "objectives may import scipy, torch alone"),
        (
            "metrics/a.py",
            "from lightning_sal.files.b import read\n",
            "metrics may import formulas, matplotlib, numpy, run_lengths, scipy",
        ),
        ("segmenters/a.py", "from lightning_sal.policy import b\n", "segmenters and policy know nothing of each other"),
        ("commands/a.py", "from lightning_sal.callbacks import b\n", "callbacks is named in YAML alone"),
        ("callbacks/a.py", "from lightning_sal.modules.b import B\n", "callbacks and modules know nothing"),
        ("policy/a.py", "def f():\n    import lightning as L\n", "policy knows nothing of the Trainer"),
    ],
)
def test_an_import_that_a_room_may_not_have_is_named(complaints, name, text, said):
    others = {f"{room}/b.py": "" for room in ("files", "policy", "callbacks", "modules")}
    (found,) = complaints(others | {name: text})
    assert found.startswith(f"lightning_sal.{name[:-3].replace('/', '.')} imports ")
    assert said in found


def test_linked_folders_are_rooms_of_the_package(imports, tmp_path):
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks/a.py").write_text("import lightning\n")
    (tmp_path / "lightning_sal").mkdir()
    (tmp_path / "lightning_sal/callbacks").symlink_to("../callbacks")
    assert imports.read_imports(tmp_path / "lightning_sal") == {"lightning_sal.callbacks.a": {"lightning"}}


def test_a_relative_import_is_refused(complaints):
    with pytest.raises(ValueError, match=r"a\.py:2: a relative import"):
        complaints({"tasks/a.py": "import os\nfrom . import b\n", "tasks/b.py": ""})


def test_the_picture_has_each_room_on_its_floor_and_no_arrow_that_a_longer_way_implies():
    """cli -> modules -> samples, and cli -> samples, which the way by modules implies."""
    draw = import_module("architecture")
    graph = {"cli": {"modules", "samples"}, "modules": {"samples"}, "samples": set()}
    assert draw.floors(graph) == {"cli": 2, "modules": 1, "samples": 0}
    assert draw.direct(graph) == {"cli": {"modules"}, "modules": {"samples"}, "samples": set()}
    modules = {
        f"lightning_sal.{room}": {f"lightning_sal.{other}" for other in others} for room, others in graph.items()
    }
    shown = draw.picture(modules)
    assert [shown.index(f">{room}<") for room in graph] == sorted(shown.index(f">{room}<") for room in graph)
    assert shown.count('class="head"') == 2
    assert "cli: 1 file. Imports modules, samples." in shown
    assert (
        markdown(f"A line.\n\n{shown}\n\nAnother.", extensions=["md_in_html"]).count(shown) == 1
    )  # not read as Markdown


def test_a_long_arrow_passes_the_floors_between_in_a_gap(imports):
    """a -> b -> c -> d and a -> e on the lowest floor: the last passes two floors."""
    draw = import_module("architecture")
    graph = {"a": {"b", "e"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": set()}
    path = draw.path_of("a", "e", draw.floors(graph))
    assert path == [("a",), ("a", "e", "2"), ("a", "e", "1"), ("e",)]
    rows = draw.order([(room,) for room in graph], [path], draw.floors(graph))
    middle = draw.across(rows)
    assert abs(middle[path[1]] - middle[("b",)]) >= (draw.BOX + draw.THREAD) / 2


def test_the_names_on_the_page_are_those_of_the_code(imports):
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = imports.rooms(imports.read_imports(imports.PACKAGE))
    names = [name for name in re.findall(r"`(\w+(?:\.\w+)+)`", page) if name.partition(".")[0] in rooms]
    assert len(names) > 20
    for name in names:
        resolve_name(f"lightning_sal.{name}")  # raises where there is none


def test_each_room_says_what_it_holds(imports):
    """The folders and files that are drawn are those of the table, with a sentence each."""
    draw = import_module("architecture")
    rows = dict(re.findall(r"^\| `(\w+)/?` \| (.+) \|$", draw.table(imports.PACKAGE), re.MULTILINE))
    assert rows.keys() == imports.rooms(imports.read_imports(imports.PACKAGE)).keys() - {"__init__", "__main__"}
