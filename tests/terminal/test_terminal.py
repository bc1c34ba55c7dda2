"""What a person sees of a run in a terminal, at two widths."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lightning_sal.cli import main
from lightning_sal.configs.places import PACKAGE
from tests.terminal.record import Terminal

NOT_OURS = (
    "TPU", "GPU available", "FLOPs", "Modules in", "eval mode", "Loading weights", "Epoch", "/-2", "Seed set",
    "Warning", "warn(", "torchmetrics", "kernels", "stopped:",
)  # fmt: skip


def quickstart(**trainer):
    """The quickstart, a few steps long."""
    config = yaml.safe_load((PACKAGE / "conf" / "quickstart.yaml").read_text())
    config["trainer"] |= {"max_steps": 5, "log_every_n_steps": 1, **trainer}
    config["data"]["init_args"] |= {"batch_size": 2, "annotated": 6, "mistakes": 0, "val_size": 3, "test_size": 3}
    return config


@pytest.fixture(scope="module", params=[80, 120])
def ran(request, tmp_path_factory):
    """A folder with a space in its name, the columns of a terminal in which a fit has run there, and its lines."""
    folder = tmp_path_factory.mktemp("a folder")
    (folder / "a.yaml").write_text(yaml.safe_dump(quickstart()))
    terminal = Terminal(["fit", "--config", "a.yaml"], folder, request.param)
    assert terminal.end() == 0, "\n".join(terminal.screen.lines)
    return folder, request.param, terminal.screen.lines


def last_lines(ran):
    """Label -> text of the lines at the end, of which a terminal breaks those that are longer than it is wide."""
    _, columns, lines = ran
    start = next(at for at, line in enumerate(lines) if line.startswith("Checkpoint:"))
    whole = []
    for line in lines[start:]:
        if re.match(r"[A-Z][\w -]+: ", line):
            whole.append(line)
        else:
            rest = len(whole[-1]) % columns
            whole[-1] += " " * (columns - rest if rest else 0) + line
    return dict(re.fullmatch(r"([A-Z][\w -]+): +(.+)", line).groups() for line in whole)


def test_nothing_on_the_screen_is_of_others(ran):
    text = "\n".join(ran[2])
    assert [noise for noise in NOT_OURS if noise in text] == []


def test_each_part_of_the_run_has_a_finished_row(ran):
    rows = [line for line in ran[2] if line.startswith("✓")]
    counts = [re.search(r"(\d+)/(\d+)", row).groups() for row in rows]
    assert [" ".join(row.split()[1:3]) for row in rows] == [
        "Before training", "SFT only,", "After SFT", "Training " + rows[3].split()[2], "After training",
    ]  # fmt: skip
    assert all(done == total for done, total in counts)
    assert counts[1] == ("2", "2")  # SFT steps of 5 steps, by 3 : 2
    assert counts[3] == ("5", "5")


def test_differences_have_errors_and_three_decimals(ran):
    row = next(line for line in ran[2] if line.split()[:1] == ["reward"] and "±" in line)
    assert len(re.findall(r"[+-]\d\.\d{3} ± \d\.\d{3}", row)) == 2


def test_paths_of_the_last_lines_are_whole_and_there(ran):
    folder, last = ran[0], last_lines(ran)
    assert {"Checkpoint", "Gallery", "TensorBoard", "Evaluate", "Answer images", "Export"} <= {*last}
    assert (folder / last["Checkpoint"]).is_file()
    assert (folder / last["Gallery"]).is_file()
    assert (folder / shlex.split(last["TensorBoard"])[-1]).is_dir()


@pytest.mark.parametrize("what", ["Evaluate", "Answer images", "Export"])
def test_commands_of_the_last_lines_run(ran, what, monkeypatch):
    monkeypatch.chdir(ran[0])
    words = shlex.split(last_lines(ran)[what])
    if what == "Answer images":
        words += ["--task", "sod", "--max-new-tokens", "16"]
    assert main(words[words.index("lightning-sal") + 1 :]) == 0


def test_without_a_checkpoint_it_says_how_to_keep_one(config, capsys):
    assert main(["fit", "--config", config()]) == 0
    assert re.search("Checkpoint: +none was kept: add", capsys.readouterr().out)


def test_a_name_of_a_bar_in_a_config_is_obeyed(config):
    given = yaml.safe_load(Path(config()).read_text())
    given["trainer"] |= {
        "enable_progress_bar": True,
        "callbacks": {"class_path": "lightning.pytorch.callbacks.TQDMProgressBar"},
    }
    assert main(["fit", "--config", config(yaml.safe_dump(given))]) == 0
