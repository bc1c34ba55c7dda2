"""Configs of one's own: written out whole, run outside the repository, edited, and never overwritten."""

import os
from pathlib import Path

import pytest
import yaml

import lightning_sal
from lightning_sal.cli import main
from tests.cli_parts import parsed_alone

PACKAGED = Path(lightning_sal.__file__).parent / "conf"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcomes(capsys) -> dict[str, str]:
    """What the command printed of each file below conf/."""
    lines = [line for line in capsys.readouterr().out.splitlines() if "conf/" in line and not line.startswith("Next")]
    return {line.rpartition("conf/")[2]: line.rpartition("  ")[0].strip() for line in lines}


@pytest.fixture
def initialised(tmp_path, monkeypatch) -> Path:
    """A folder outside the repository that has conf/, and in which the test runs."""
    assert main(["init", str(tmp_path / "mine")]) == 0
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def parsed(monkeypatch):
    """Runs a trainer command as far as the parsed config, which it returns."""
    configs = parsed_alone(monkeypatch)

    def parse(*argv: str):
        assert main(list(argv)) == 0
        return configs.pop()

    return parse


def test_every_packaged_file_is_written_and_nothing_else(tmp_path, capsys):
    assert main(["init", str(tmp_path / "new/folder")]) == 0
    packaged = {"conf": PACKAGED, "prompts": PACKAGED.parent / "annotation/prompts"}
    wanted = {f"{name}/{file}": data for name, folder in packaged.items() for file, data in contents(folder).items()}
    assert contents(tmp_path / "new/folder") == wanted
    assert outcomes(capsys) == dict.fromkeys(contents(PACKAGED), "written")


def test_what_is_there_is_left_and_what_is_missing_is_added(initialised, capsys):
    Path("conf/sft.yaml").write_text("mine: true\n")
    Path("conf/cgpo.yaml").unlink()
    Path("conf/test.yaml").unlink()
    Path("conf/test.yaml").symlink_to("nowhere.yaml")
    Path("conf/notes.txt").write_text("mine too")
    capsys.readouterr()
    assert main(["init", "."]) == 0
    assert outcomes(capsys) == dict.fromkeys(contents(PACKAGED), "left, equal") | {
        "sft.yaml": "left, differs",
        "test.yaml": "left, differs",
        "cgpo.yaml": "written",
    }
    assert Path("conf/sft.yaml").read_text() == "mine: true\n"
    assert Path("conf/test.yaml").readlink() == Path("nowhere.yaml")
    assert Path("conf/cgpo.yaml").read_bytes() == (PACKAGED / "cgpo.yaml").read_bytes()
    assert Path("conf/notes.txt").read_text() == "mine too"


def test_a_written_file_is_no_link_into_the_package(initialised):
    before = contents(PACKAGED)
    for path in Path("conf").rglob("*.yaml"):
        with path.open("a") as file:
            file.write("# edited in place\n")
    assert contents(PACKAGED) == before


def test_a_disk_that_fills_leaves_whole_files_alone(tmp_path, monkeypatch, capsys):
    written = []

    def write_half(path: Path, data: bytes) -> int:
        written.append(path)
        with path.open("wb") as file:
            file.write(data if len(written) < 4 else data[: len(data) // 2])
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", write_half)
    assert main(["init", str(tmp_path)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    found = contents(tmp_path)
    assert len(found) == 3
    assert {f"conf/{name}": data for name, data in contents(PACKAGED).items()}.items() >= found.items()


def test_a_file_that_appears_meanwhile_is_left(tmp_path, monkeypatch, capsys):
    link = os.link

    def link_late(source, target, **options):
        if Path(target).name == "sft.yaml" and not Path(target).exists():
            Path(target).write_text("theirs")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", link_late)
    assert main(["init", str(tmp_path)]) == 0
    assert outcomes(capsys)["sft.yaml"] == "left, differs"
    assert (tmp_path / "conf/sft.yaml").read_text() == "theirs"


def test_a_file_system_without_hard_links_is_one_line(tmp_path, monkeypatch, capsys):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    assert main(["init", str(tmp_path)]) == 1
    line = "README.md: Operation not permitted; choose a folder whose file system has hard links"
    assert line in capsys.readouterr().err
    assert not contents(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "conf").write_text("no folder")
    assert main(["init", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"lightning: error: {tmp_path / 'conf'}: File exists")


def test_references_between_files_lead_to_the_edited_ones(initialised, parsed):
    command = ("test", "--config", "conf/test.yaml")
    assert parsed(*command).data.init_args.root == "data"
    Path("conf/paths.yaml").write_text(Path("conf/paths.yaml").read_text().replace("data: data", "data: elsewhere"))
    assert parsed(*command).data.init_args.root == "elsewhere"
    assert parsed("fit", "--config", "conf/sft.yaml").paths.data == "elsewhere"
    Path("conf/test.yaml").unlink()  # then the packaged one, with the packaged paths
    assert parsed(*command).data.init_args.root == "data"


def test_the_quickstart_runs_from_the_edited_file(initialised):
    config = yaml.safe_load(Path("conf/quickstart.yaml").read_text())
    config["trainer"]["max_steps"] = 2
    config["data"]["init_args"].update(batch_size=2, steps_per_epoch=2, annotated=6, mistakes=1, val_size=3)
    Path("conf/quickstart.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "conf/quickstart.yaml"]) == 0
    assert (initialised / "runs/quickstart/gallery/gallery.png").is_file()
    saved = yaml.safe_load((initialised / "runs/quickstart/version_0/config.yaml").read_text())
    assert (saved["trainer"]["max_steps"], saved["data"]["init_args"]["val_size"]) == (2, 3)


def test_a_file_in_place_of_the_folder_is_named(tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    assert main(["init", str(tmp_path / "mine")]) == 1
    assert f"{tmp_path / 'mine'} is a file: name a folder" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"
