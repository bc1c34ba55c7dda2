"""The ablation: its file, its grid, its runs and its tables."""

import csv
import json
from types import SimpleNamespace

import pytest

from lightning_sal.cli import main
from lightning_sal.commands import ablate
from lightning_sal.evaluation.ablation import Run, read_ablation
from lightning_sal.evaluation.ablation_grid import Chosen, choose, power_text
from lightning_sal.evaluation.ablation_runs import Result, compare, differences, read_result
from lightning_sal.evaluation.ablation_table import arm_rows, comparison_rows, markdown
from lightning_sal.evaluation.comparison import Sample, write_arms
from lightning_sal.evaluation.crossed import Components

FILE = """\
folder: {folder}
fit: conf/ablation/fit.yaml
seeds: [3, 5]
arms:
  one: --config conf/rl/cgpo.yaml
  two: --config conf/rl/grpo.yaml --model.init_args.beta 0
"""
GRID = """\
grid: {model.init_args.updates_per_rollout: [1, 2], model.init_args.optimizer.init_args.lr: [0.5, 1]}
grid_seeds: [100]
"""
UPDATES, RATE = "model.init_args.updates_per_rollout", "model.init_args.optimizer.init_args.lr"
COST = {
    "rl_steps": 1,
    "rl_seconds": 1.5,
    "sft_steps": None,
    "sft_seconds": None,
    "prompts": 1,
    "responses": 8,
    "memory": 2_000_000_000,
    "seconds": 120.0,
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ablation.yaml"
    path.write_text(FILE.format(folder=tmp_path / "runs"))
    return path


def samples(exact, keys="abcd", correctness=0.5):
    """Held-out samples of which those of `exact` are exactly right; None where the task has no such answers."""
    return [Sample(key, "sod", None if exact is None else key in exact, correctness, 0.75, 0.9) for key in keys]


def result(exact, keys="abcd", correctness=0.5):
    line = {"step": 1, "seconds": 2.0, "reward": 0.5, "responses": 8, "prompts": 1}
    return Result(samples(exact, keys, correctness), COST, [line])


def write_run(folder, exact, keys="abcd"):
    """What RunRecord leaves of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    found = result(exact, keys)
    write_arms({"CGPO": found.samples}, folder / "samples.jsonl")
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found.curve))
    (folder / "run.json").write_text(json.dumps(found.cost))


class Fits:
    """In place of processes: each `lightning fit` writes a run, or ends with 1 where `dies` says so."""

    def __init__(self, monkeypatch, dies=lambda words: False, right=lambda words: "ab"):
        self.commands, self.dies, self.right = [], dies, right
        monkeypatch.setattr(ablate.subprocess, "Popen", self.start)

    def start(self, command, stdout, stderr, env):
        self.commands.append(command)
        root = next(word for word in command if word.startswith("--trainer.default_root_dir="))
        if self.dies(command):
            stdout.write("lightning: error: no\n")
            return SimpleNamespace(wait=lambda: 1)
        write_run(ablate.Path(root.partition("=")[2]), self.right(command))
        return SimpleNamespace(wait=lambda: 0)


def callbacks(command):
    """Name -> options of the callbacks that a command adds."""
    option = "--trainer.callbacks+="
    added = [json.loads(word.removeprefix(option)) for word in command if word.startswith(option)]
    return {each["class_path"].rpartition(".")[2]: each["init_args"] for each in added}


def test_an_arm_is_a_fit_with_its_options_and_one_seed(file, tmp_path):
    ablation = read_ablation(file)
    (run,) = (run for run in ablation.judged_runs({"two": {}}) if run.seed == 5)
    command = ablation.command(run)
    assert command[:3] == ["fit", "--config", "conf/ablation/fit.yaml"]
    assert command[3:7] == ["--config", "conf/rl/grpo.yaml", "--model.init_args.beta", "0"]
    assert {"--seed_everything=5", "--data.init_args.seed=5", "--model.init_args.seed=5"} < set(command)
    assert f"--trainer.default_root_dir={tmp_path / 'runs' / 'two' / 'seed_5'}" in command
    assert callbacks(command) == {"RunRecord": {"split": "val"}}


def test_a_budget_is_a_callback_of_every_run(file):
    file.write_text(file.read_text() + "budget: {responses: 96}\n")
    ablation = read_ablation(file)
    (run, *_) = ablation.judged_runs({"one": {}})
    assert callbacks(ablation.command(run)) == {"RunRecord": {"split": "val"}, "Budget": {"responses": 96}}


def test_a_grid_has_every_combination_that_an_arm_has(file):
    text = file.read_text().replace("one: --config conf/rl/cgpo.yaml", f"one: {{options: '', without: [{UPDATES}]}}")
    file.write_text(text + GRID)
    ablation = read_ablation(file)
    runs = ablation.grid_runs()
    assert {(run.seed, run.split) for run in runs} == {(100, "val")}
    assert [run.settings for run in runs if run.arm == "one"] == [{RATE: 0.5}, {RATE: 1}]
    assert [tuple(run.settings.values()) for run in runs if run.arm == "two"] == [(1, 0.5), (1, 1), (2, 0.5), (2, 1)]
    assert len({run.folder for run in runs}) == len(runs)
    assert {f"--{UPDATES}=2", f"--{RATE}=1"} < set(ablation.command(runs[-1]))
    assert {run.split for run in ablation.judged_runs({"one": {}})} == {"test"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("seeds", "seed"), "an ablation has arms, fit, folder, seeds"),
        (("arms", "rams"), "an ablation has arms, fit, folder, seeds"),
        (("seeds: [3, 5]\n", ""), "an ablation has arms, fit, folder, seeds"),
        (("[3, 5]", "[3, five]"), "seeds are a list of whole numbers"),
        (("seeds: [3, 5]", "seeds: [3, 5]\ngrid: {a.b: [1]}"), "grid and grid_seeds come together"),
        (("seeds: [3, 5]", "seeds: [3, 5]\ngrid: {a.b: [1]}\ngrid_seeds: [5]"), "judged on a seed that chose"),
        (("seeds: [3, 5]", "seeds: [3, 5]\nbudget: {prompts: 1, seconds: 1}"), "budget is a mapping with one of"),
        (("seeds: [3, 5]", "seeds: [3, 5]\ncomparisons: [[two, three]]"), "comparisons are a list of pairs"),
        (("seeds: [3, 5]", "seeds: [3, 5]\nmeasures: [exactness]"), "measures are a list of exact"),
        (("one: --config conf/rl/cgpo.yaml", "one: {without: [a]}"), "arms are names"),
        (("arms:\n", "arms:\n  a b: ''\n  a/b: ''\n"), "two arms have the same folder"),
    ],
)
def test_a_file_that_says_something_else_is_refused(file, change, line):
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ValueError, match=line):
        read_ablation(file)


def test_the_table_has_means_and_errors():
    """50 and 100 % exact: mean 75 with error 25; one run has none."""
    arms = {"first": {0: result("ab"), 1: result("abcd")}, "second": {0: result("")}}
    heads, table = arm_rows(arms)
    cells = [dict(zip(heads, line, strict=True)) for line in table]
    assert [line["exact %"] for line in cells] == ["75.0 ± 25.0", "0.0"]
    assert [line["seeds"] for line in cells] == ["2", "1"]
    assert cells[0]["S"] == "0.500 ± 0.000"
    assert "sod exact %" not in heads  # there is no other task
    assert "sis matched S" not in heads  # no arm has samples of it
    assert cells[0]["s an SFT step"] == ""
    assert (cells[0]["RL steps"], cells[0]["prompts"], cells[0]["responses"]) == ("1", "1", "8")
    assert (cells[0]["s an RL step"], cells[0]["peak GB"], cells[0]["minutes"]) == ("1.50", "2.00", "2.0")
    lines = markdown((heads, table)).splitlines()
    assert lines[2].startswith("| first | 2 | 75.0 ± 25.0 |")
    assert all(line.count("|") == len(heads) + 1 for line in lines)


def test_differences_are_paired_over_seeds_and_scenes():
    """Seed 0 gains a and c, seed 1 gains a and loses d; seed 2 the other arm has not."""
    ours = {0: result("abc"), 1: result("a"), 2: result("")}
    theirs = {1: result("d"), 0: result("b")}
    assert differences(ours, theirs, "exact").tolist() == [[100, 0, 100, 0], [100, 0, 0, -100]]
    assert differences(ours, {0: result("b", keys="abce")}, "exact") is None
    assert differences(ours, {7: result("b")}, "exact") is None


def test_a_task_without_exact_answers_is_compared_by_correctness():
    arms = {"one": {0: result(None, correctness=0.25)}, "two": {0: result(None, correctness=0.75)}}
    assert "exact %" not in arm_rows(arms)[0]
    assert differences(arms["two"], arms["one"], "exact") is None
    (found,) = compare(arms, [("two", "one")], ["correctness/sod"])
    assert found.found.mean == 0.5
    heads, rows = comparison_rows([found])
    assert rows[0][heads.index("difference")] == "+0.5000"


def test_every_comparison_is_listed_and_counts_in_the_correction():
    """Of two seeds and the same gains: p times 2 for the smaller one; a pair without common scenes has no number."""
    arms = {
        "reference": {0: result(""), 1: result("")},
        "better": {0: result("abc"), 1: result("abd")},
        "a little": {0: result("ab"), 1: result("a")},
        "elsewhere": {0: result("", keys="efgh")},
    }
    pairs = [("better", "reference"), ("a little", "reference"), ("elsewhere", "reference")]
    first, second, third = compare(arms, pairs, ["exact"])
    assert first.found.mean == 75
    assert first.found.p < second.found.p
    assert first.p_holm == pytest.approx(2 * first.found.p)
    assert second.p_holm == pytest.approx(max(second.found.p, 2 * first.found.p))
    assert third.found is None
    heads, rows = comparison_rows([first, second, third])
    assert rows[2][:3] == ["elsewhere", "reference", "exact"]
    assert set(rows[2][3:]) == {""}
    assert all(len(row) == len(heads) for row in rows)


def test_the_best_combination_is_chosen_and_a_half_one_is_not(tmp_path):
    def runs(arm, rate, *found):
        return [(Run(arm, seed, {RATE: rate}, "val", tmp_path), each) for seed, each in enumerate(found)]

    results = [
        *runs("one", 1, result("ab"), result("ab")),
        *runs("one", 2, result("abcd"), result("a")),  # 62.5 % in the mean
        *runs("one", 3, result("abcd")),  # its other seed died
        *runs("two", 1, result("a", correctness=0.6), result("b", correctness=0.6)),
        *runs("two", 2, result("b", correctness=0.7), result("b", correctness=0.6)),
        *runs("three", 1, result("a")),
    ]
    assert choose(results, [0, 1]) == {"one": {RATE: 2}, "two": {RATE: 2}}


def test_the_judged_runs_use_what_the_grid_has_chosen(file, tmp_path, capsys, monkeypatch):
    file.write_text(file.read_text() + GRID + "budget: {prompts: 32}\n")
    fits = Fits(monkeypatch, right=lambda words: "abc" if {f"--{UPDATES}=2", f"--{RATE}=0.5"} < {*words} else "a")
    assert main(["ablate", "--config", str(file), "--grid-only"]) == 0
    folder = tmp_path / "runs"
    assert len(fits.commands) == 8
    assert not (folder / "one").exists()
    power = (folder / "power.md").read_text()
    assert "2 seeds and 4 scenes, as many" in power
    with (folder / "grid.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    best = "model.updates_per_rollout=2,model.optimizer.lr=0.5"
    assert {row["exact %"] for row in rows if row["options"] == best} == {"75.00"}
    assert len(rows) == 8
    fits.commands.clear()
    assert main(["ablate", "--config", str(file)]) == 0
    assert len(fits.commands) == 4
    assert all({f"--{UPDATES}=2", f"--{RATE}=0.5"} < {*command} for command in fits.commands)
    added = {"RunRecord": {"split": "test"}, "Budget": {"prompts": 32}}
    assert all(callbacks(command) == added for command in fits.commands)
    table = (folder / "table.md").read_text()
    assert f"- one: {best}, chosen on seed 100\n" in table
    assert "run 4/4" in capsys.readouterr().out


def test_power_of_a_grid_of_one_seed_has_both_ends_of_what_it_cannot_tell_apart(file):
    chosen = Chosen((100,), {}, "exact", 10_000, Components(None, 40.0**2, 0.0))
    text = power_text(chosen, read_ablation(file))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 0, ")]
    alike, none = (float(row[1]) for row in rows)
    assert alike == pytest.approx((1.960 + 0.842) * 40 / 10_000**0.5, rel=1e-2)  # normal quantiles of 97.5 and 80 %
    assert none == pytest.approx(alike / 2**0.5, rel=1e-2)  # the mean over two seeds


def test_an_earlier_grid_serves_another_ablation(file, tmp_path, monkeypatch):
    text = file.read_text()
    file.write_text(text + GRID)
    fits = Fits(monkeypatch)
    assert main(["ablate", "--config", str(file), "--grid-only"]) == 0
    (tmp_path / "runs" / "chosen.yaml").rename(tmp_path / "chosen.yaml")
    file.write_text(text.replace("/runs", "/others") + "chosen: chosen.yaml\n")
    fits.commands.clear()
    assert main(["ablate", "--config", str(file)]) == 0
    assert len(fits.commands) == 4
    assert all(callbacks(command)["RunRecord"] == {"split": "test"} for command in fits.commands)
    assert (tmp_path / "others" / "power.md").exists()
    file.write_text(text.replace("[3, 5]", "[3, 100]") + "chosen: chosen.yaml\n")
    assert main(["ablate", "--config", str(file)]) == 1  # an arm would be judged on the seed that chose
    assert len(fits.commands) == 4


def test_an_arm_whose_grid_died_is_left_out_and_gets_another_chance(file, tmp_path, capsys, monkeypatch):
    file.write_text(file.read_text() + GRID)
    Fits(monkeypatch, dies=lambda words: "conf/rl/grpo.yaml" in words)
    assert main(["ablate", "--config", str(file)]) == 1
    assert "two: left out, since no combination of the grid is whole" in capsys.readouterr().out
    fits = Fits(monkeypatch)
    assert main(["ablate", "--config", str(file)]) == 0
    assert len(fits.commands) == 4 + 2  # the grid of the one arm, and its judged runs
    assert "| two |" in (tmp_path / "runs" / "table.md").read_text()


def test_whole_runs_are_not_run_again_and_a_failed_one_is_left_out_and_named(file, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "runs"
    for seed in (3, 5):
        write_run(folder / "one" / f"seed_{seed}", "a")
    fits = Fits(monkeypatch, dies=lambda words: "--seed_everything=5" in words)
    assert main(["ablate", "--config", str(file)]) == 1
    out = capsys.readouterr().out
    assert len(fits.commands) == 2
    assert all("conf/rl/grpo.yaml" in command for command in fits.commands)
    assert "one, seed 3: done before" in out
    assert f"two, seed 5: failed, see {folder / 'two' / 'seed_5' / 'log.txt'} (run 4/4" in out
    table = (folder / "table.md").read_text()
    assert "| one | 2 |" in table
    assert "| two | 1 |" in table
    assert "two, seed 5: left out, since it is not whole" in table
    assert "over scenes alone" in table  # one seed is left of the pair
    assert (folder / "reward.png").stat().st_size > 1000


def test_a_run_that_died_begins_anew_and_its_log_stays(file, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "two"
    Fits(monkeypatch, dies=lambda words: "conf/rl/grpo.yaml" in words)
    assert main(["ablate", "--config", str(file)]) == 1
    (folder / "seed_3" / "samples.jsonl").write_text("half a l")
    fits = Fits(monkeypatch)
    assert main(["ablate", "--config", str(file)]) == 0
    assert len(fits.commands) == 2
    assert len(read_result(folder / "seed_3").samples) == 4
    assert (folder / "seed_3.died" / "log.txt").read_text() == "lightning: error: no\n"
    assert (folder / "seed_3.died" / "samples.jsonl").exists()


def test_runs_with_other_options_are_not_mixed_in(file, tmp_path, capsys, monkeypatch):
    fits = Fits(monkeypatch)
    assert main(["ablate", "--config", str(file)]) == 0
    file.write_text(file.read_text().replace("beta 0", "beta 1"))
    assert main(["ablate", "--config", str(file)]) == 1
    assert "holds a run with other options" in capsys.readouterr().err
    assert len(fits.commands) == 4


def test_two_of_them_in_one_folder_are_refused(file, tmp_path, capsys, monkeypatch):
    Fits(monkeypatch)
    with ablate._alone(tmp_path):
        text = file.read_text().replace(str(tmp_path / "runs"), str(tmp_path))
        file.write_text(text)
        assert main(["ablate", "--config", str(file)]) == 1
    assert "another ablate runs there" in capsys.readouterr().err


def test_a_grid_and_a_judged_run_by_the_command(tmp_path, capsys):
    """Three steps of SFT, on four scenes of val and then on five of test, in processes of their own."""
    small = "--trainer.max_steps 3 --model.init_args.max_new_tokens 4"
    small += " --data.init_args.val_size 4 --data.init_args.test_size 5 --data.init_args.batch_size 2"
    file = tmp_path / "ablation.yaml"
    file.write_text(
        f"folder: {tmp_path / 'runs'}\nfit: conf/ablation/fit.yaml\nseeds: [0]\ngrid_seeds: [1]\n"
        f"grid: {{{RATE}: [0.001]}}\nprocesses: 2\nbudget: {{prompts: 4}}\n"
        f"arms:\n  SFT only: --config conf/ablation/sft.yaml {small}\n"
    )
    assert main(["ablate", "--config", str(file)]) == 0
    run = json.loads((tmp_path / "runs" / "SFT_only" / "seed_0" / "run.json").read_text())
    assert run["rl_seconds"] is None
    assert run["sft_seconds"] > 0
    assert run["memory"] > 1e8
    assert (run["sft_steps"], run["prompts"], run["responses"]) == (3, 0, 0)
    assert len(read_result(tmp_path / "runs" / "SFT_only" / "seed_0").samples) == 5
    (chosen_on,) = (tmp_path / "runs" / "grid").glob("*/*/seed_1")
    assert len(read_result(chosen_on).samples) == 4
    assert "SFT only, seed 0, model.optimizer.lr=0.001: done" in capsys.readouterr().out
