"""The Dockerfile, as far as it can be checked without a builder."""

import fnmatch
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, in_checkout

pytestmark = in_checkout
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text()) if (ROOT / "pyproject.toml").is_file() else {}


def instructions():
    """Each instruction with what stands behind it, comments and line breaks taken out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def of(name):
    return [rest for found, rest in instructions() if found == name]


def copied():
    """(sources, target) of each COPY."""
    return [(words[:-1], words[-1]) for words in map(shlex.split, of("COPY"))]


@pytest.fixture
def image(tmp_path):
    """The folder of the project as the image has it."""
    for sources, target in copied():
        for source in sources:
            place = tmp_path / target / (source if target.endswith("/") else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)
    return tmp_path


def test_what_is_copied_is_there_and_not_ignored():
    wanted = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for sources, _ in copied():
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in wanted), f"{source} is ignored"


def test_the_wheel_can_be_built_of_what_is_copied(image):
    project = PYPROJECT["project"]
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [project["readme"], *project["license-files"], *packages]
    assert [name for name in needed if not (image / name).exists()] == []
    broken = [path for path in Path(image).rglob("*") if path.is_symlink() and not path.exists()]
    assert broken == []
    assert (image / "lightning_sal/conf/quickstart.yaml").is_file()


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_options_of_uv_exist():
    for line in of("RUN"):
        for command in re.split(r"&&|;", line):
            words = shlex.split(command)
            if words[:1] != ["uv"]:
                continue
            helped = subprocess.run([*words[:2], "--help"], capture_output=True, text=True, check=True).stdout
            for option in (word for word in words[2:] if word.startswith("-")):
                assert re.search(rf"{option}\b", helped), f"{' '.join(words[:2])} has no {option}"


def test_the_base_names_no_registry():
    (base,) = [rest.partition("=")[2] for rest in of("ARG") if rest.startswith("BASE_IMAGE=")]
    assert of("FROM") == ["${BASE_IMAGE}"]
    first = base.split("/")[0]
    assert not {".", ":"} & set(first)


def test_it_runs_the_command_and_not_as_root():
    (entry,) = of("ENTRYPOINT")
    assert entry == '["lightning-sal"]'  # in this form signals reach it
    assert "lightning-sal" in PYPROJECT["project"]["scripts"]
    assert of("USER")[-1:] not in ([], ["root"], ["0"])


def test_its_python_is_supported():
    environment = " ".join(of("ENV"))
    python = re.search(r"UV_PYTHON=python(3\.\d+)", environment)
    assert python, "the Python is not stated"
    assert f"Programming Language :: Python :: {python[1]}" in PYPROJECT["project"]["classifiers"]


def test_the_page_states_its_arguments():
    page = (ROOT / "docs/docker.md").read_text()
    for argument in of("ARG"):
        name, _, default = argument.partition("=")
        assert f"`{name}` | `{default}`" in page or f"`{name}` | {default}" in page, argument
