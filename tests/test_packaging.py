"""The package as others install it: what the wheel holds, what the links point to, and that every config parses."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightning_sal
from lightning_sal.cli import main
from lightning_sal.evaluation.ablation import read_ablation
from tests.cli_parts import parsed_alone

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("callbacks", "conf", "datamodules")
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml"))
COMMAND = re.compile(r"^#.*?\blightning ((?:fit|validate|test|predict) .*--config .*)$", re.MULTILINE)
ABLATION = re.compile(r"^#.*?\blightning-sal ablate --config (\S+)(?: --grid-only)?$", re.MULTILINE)

in_checkout = pytest.mark.skipif(
    not (ROOT / "callbacks").is_dir(), reason="the linked folders are in the repository only"
)


@in_checkout
@pytest.mark.parametrize("name", LINKED)
def test_the_package_links_to_the_root_folders(name):
    link = ROOT / "lightning_sal" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name
    assert not link.readlink().is_absolute()


@pytest.fixture(scope="module", params=["wheel", "wheel through sdist"])
def wheel_files(request, tmp_path_factory) -> set[str]:
    """Names of the files of a wheel built from this folder, without network."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not on PATH, and the build backend is no dependency of the tests")
    folder = tmp_path_factory.mktemp("dist")
    command = ["uv", "build", "--offline", "--out-dir", str(folder), str(ROOT)]
    done = subprocess.run(command + (["--wheel"] if request.param == "wheel" else []), capture_output=True, text=True)
    if "build-system.requires" in done.stderr:
        pytest.skip("hatchling is not in uv's cache, and tests use no network")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


@in_checkout
def test_the_wheel_holds_the_whole_package_and_nothing_beside_it(wheel_files):
    package = {
        (Path(folder) / name).relative_to(ROOT).as_posix()
        for folder, _, names in os.walk(ROOT / "lightning_sal", followlinks=True)
        for name in names
        if not folder.endswith("__pycache__")
    }
    assert {name.partition("/")[0] for name in wheel_files if ".dist-info/" not in name} == {"lightning_sal"}
    assert {name for name in wheel_files if ".dist-info/" not in name} == package
    for name in LINKED:
        assert any(file.startswith(f"lightning_sal/{name}/") for file in wheel_files)


@in_checkout
def test_the_wheel_holds_the_licence_in_full(wheel_files):
    assert [name for name in wheel_files if name.endswith(".dist-info/licenses/LICENSE")]
    # The SHA-256 of the text that the Apache Software Foundation publishes.
    published = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == published


@in_checkout
def test_the_version_is_the_same_wherever_it_stands():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {project["version"], citation["version"], lightning_sal.__version__} == {lightning_sal.__version__}
    assert project["license"] == citation["license"] == "Apache-2.0"


@pytest.fixture(scope="module")
def pins() -> list[Requirement]:
    if not (ROOT / "uv.lock").is_file() or Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the pins hold in the environment that `uv run` makes")
    uv = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    return [Requirement(pin) for pin in uv["constraint-dependencies"]]


@in_checkout
def test_every_package_on_every_machine_is_pinned(pins):
    """Whatever the platform, Python, extras and groups: what uv resolved for all of them is what pyproject.toml states."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    resolved = {
        f"{package['name']}=={package['version']}" for package in packages if package["name"] != "lightning-sal"
    }
    assert {f"{pin.name}{pin.specifier}" for pin in pins} == resolved, "run .ci/pin"


@in_checkout
def test_every_installed_package_is_the_pinned_one(pins):
    installed = {canonicalize_name(distribution.name): distribution.version for distribution in distributions()}
    here = {pin.name: pin.specifier for pin in pins if pin.marker is None or pin.marker.evaluate()}
    common = installed.keys() & here.keys()
    assert "transformers" in common
    assert {name: installed[name] for name in common if installed[name] not in here[name]} == {}


def test_there_are_configs():
    assert "conf/quickstart.yaml" in CONFIGS


@pytest.mark.parametrize("path", CONFIGS)
def test_every_config_parses_by_the_command_in_its_header(path, monkeypatch):
    """Its head names a command that uses it, and LightningCLI takes it as it stands; nothing is instantiated."""
    head = (ROOT / path).read_text().replace("\\\n#", "")
    commands = [shlex.split(command, comments=True) for command in COMMAND.findall(head)]
    for ablation in (read_ablation(ROOT / name) for name in ABLATION.findall(head)):
        runs = ablation.grid_runs() or ablation.judged_runs({arm: {} for arm in ablation.arms})
        commands += [ablation.command(run) for run in {run.arm: run for run in runs}.values()]  # one of each arm
    assert commands, f"{path} does not begin with the command that runs it: #   lightning fit --config {path}"
    monkeypatch.chdir(ROOT)
    parsed = parsed_alone(monkeypatch)
    for command in commands:
        assert main(command) == 0
    assert len(parsed) == len(commands)
