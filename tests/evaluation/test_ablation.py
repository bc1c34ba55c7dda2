"""The ablation: its file, its runs and its table."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lightning_sal.cli import main
from lightning_sal.commands import ablate
from lightning_sal.evaluation.ablation import markdown, read_ablation, read_arm, rows
from lightning_sal.evaluation.comparison import Sample, write_arms

FILE = """\
folder: {folder}
fit: conf/ablation/fit.yaml
seeds: [3, 5]
arms:
  one: --config conf/rl/cgpo.yaml
  two: --config conf/rl/grpo.yaml --model.init_args.beta 0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ablation.yaml"
    path.write_text(FILE.format(folder=tmp_path / "runs"))
    return path


def run_folder(folder, exact, seconds, keys=("a", "b")):
    """A run in which the samples of `exact` were exactly right."""
    folder.mkdir(parents=True)
    samples = [Sample(key, "sod", key in exact, 0.5, 0.75, 0.9) for key in keys]
    write_arms({"CGPO": samples}, folder / "samples.jsonl")
    line = {"step": 1, "seconds": 2.0, "reward": 0.5, "responses": 8, "prompts": 1}
    (folder / "curve.jsonl").write_text(json.dumps(line) + "\n")
    run = {"rl_seconds": seconds, "sft_seconds": None, "memory": 2_000_000_000, "responses": 8.0, "seconds": 120.0}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_an_arm_is_a_fit_with_its_options_and_one_seed(file, tmp_path):
    ablation = read_ablation(file)
    command = ablation.command("two", 5)
    assert command[:3] == ["fit", "--config", "conf/ablation/fit.yaml"]
    assert command[3:7] == ["--config", "conf/rl/grpo.yaml", "--model.init_args.beta", "0"]
    assert {"--seed_everything=5", "--data.init_args.seed=5", "--model.init_args.seed=5"} < set(command)
    assert f"--trainer.default_root_dir={tmp_path / 'runs' / 'two' / 'seed_5'}" in command


@pytest.mark.parametrize("change", [("seeds", "seed"), ("arms", "rams"), ("seeds: [3, 5]\n", "")])
def test_a_file_with_a_wrong_key_is_refused(file, change):
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ValueError, match="an ablation has arms, fit, folder, seeds"):
        read_ablation(file)


def test_the_table_has_means_errors_and_paired_differences(tmp_path):
    """First arm: 50 and 100 % exact, mean 75 with error 25. Second: nothing, on samples a and b 0.5 and 1 less: -75 ± 25."""
    first = read_arm([run_folder(tmp_path / "0", {"b"}, 1.0), run_folder(tmp_path / "1", {"a", "b"}, 3.0)])
    second = read_arm([run_folder(tmp_path / "2", set(), 0.5), run_folder(tmp_path / "3", set(), 0.5)])
    other = read_arm([run_folder(tmp_path / "4", {"c"}, 0.5, keys=("c", "d"))])
    heads, table = rows({"first": first, "second": second, "other": other})
    cells = [dict(zip(heads, line, strict=True)) for line in table]
    assert [line["exact %"] for line in cells] == ["75.0 ± 25.0", "0.0 ± 0.0", "50.0"]
    behind = [line[heads.index("exact %") + 1] for line in table]
    assert heads[heads.index("exact %") + 1] == "difference"
    assert behind == ["", "-75.0 ± 25.0", ""]
    assert cells[0]["sod S"] == "0.500 ± 0.000"
    assert cells[0]["s an SFT step"] == ""
    assert "sis matched S" not in heads  # no arm has samples of it
    assert cells[0]["s an RL step"] == "2.00"
    assert cells[0]["peak GB"] == "2.00"
    assert cells[0]["responses a prompt"] == "8.0"
    lines = markdown(heads, table).splitlines()
    assert lines[2].startswith("| first | 75.0 ± 25.0 |")
    assert all(line.count("|") == len(heads) + 1 for line in lines)


def test_what_no_answer_can_be_is_no_column(tmp_path):
    """A task without an exactly right answer: nothing stands for 0, and correctness has its own difference."""
    arms = {name: read_arm([run_folder(tmp_path / name, set(), 1.0)]) for name in ("one", "two")}
    arms = {
        name: replace(
            arm, samples=[[replace(sample, exact=None, correctness=value) for sample in run] for run in arm.samples]
        )
        for (name, arm), value in zip(arms.items(), (0.25, 0.75), strict=True)
    }
    heads, table = rows(arms)
    assert "exact %" not in heads
    assert [line[heads.index("sod S") + 1] for line in table] == ["", "+0.500 ± 0.000"]


def test_whole_runs_are_not_run_again_and_a_failed_one_is_named(file, tmp_path, capsys, monkeypatch):
    for seed in (3, 5):
        run_folder(tmp_path / "runs" / "one" / f"seed_{seed}", {"a"}, 1.0)
    asked = []

    def fails(command, stdout, **_):
        asked.append(command)
        stdout.write("lightning: error: no\n")
        return SimpleNamespace(wait=lambda: 1)

    monkeypatch.setattr(ablate.subprocess, "Popen", fails)
    assert main(["ablate", "--config", str(file)]) == 1
    out = capsys.readouterr().out
    assert len(asked) == 2
    assert all("conf/rl/grpo.yaml" in command for command in asked)
    assert "one, seed 3: done before" in out
    assert f"two, seed 5: failed, see {tmp_path / 'runs' / 'two' / 'seed_5' / 'log.txt'}" in out
    assert (tmp_path / "runs" / "table.md").read_text().count("\n") == 3
    assert (tmp_path / "runs" / "reward.png").stat().st_size > 1000


def test_one_run_by_the_command(tmp_path, capsys):
    """Three steps of SFT on four scenes, in a process of its own."""
    small = "--trainer.max_steps 3 --model.init_args.max_new_tokens 4"
    small += " --data.init_args.val_size 4 --data.init_args.batch_size 2"
    file = tmp_path / "ablation.yaml"
    file.write_text(
        f"folder: {tmp_path / 'runs'}\nfit: conf/ablation/fit.yaml\nseeds: [0]\n"
        f"arms:\n  SFT only: --config conf/ablation/sft.yaml {small}\n"
    )
    assert main(["ablate", "--config", str(file)]) == 0
    run = json.loads((tmp_path / "runs" / "SFT_only" / "seed_0" / "run.json").read_text())
    assert run["rl_seconds"] is None
    assert run["sft_seconds"] > 0
    assert run["memory"] > 1e8
    assert "SFT only, seed 0: done" in capsys.readouterr().out
