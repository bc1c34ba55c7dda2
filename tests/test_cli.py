"""The command line: what it offers, how configs come together, and the one line that answers a mistake."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lightning_sal import commands
from lightning_sal.cli import TRAINER_COMMANDS, main
from lightning_sal.internals.parser import MOVED
from tests.cli_parts import CONFIG, fails, parsed_alone

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(10 * [f'*{old}'])}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def parsed(monkeypatch):
    """Runs a trainer command as far as the parsed config, which it returns."""
    configs = parsed_alone(monkeypatch)

    def parse(*argv: str):
        assert main(list(argv)) == 0
        return configs.pop()

    return parse


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(argv):
    code = f"import sys; from lightning_sal.cli import main; main({argv}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "transformers", "numpy", "yaml"} & set(done.stderr.split())
    assert done.stdout


def test_help_names_every_command_and_what_it_does(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in (*TRAINER_COMMANDS, *commands.available()):
        assert f"\n  {name} " in shown
    for module in commands.available().values():
        assert (module.__doc__ or "").splitlines()[0] in shown


def test_a_new_command_is_a_new_file_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "say_hello.py").write_text('"""Greet."""\ndef main(argv):\n    print("hello", *argv)\n    return 7\n')
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "lightning_sal.commands.say_hello", raising=False)
    assert main(["say-hello", "you"]) == 7
    assert capsys.readouterr().out == "hello you\n"


def test_a_wrong_word_is_answered_with_the_nearest(capsys):
    assert fails(capsys, ["fti"], 2) == "unknown command 'fti'; did you mean fit?"
    known = fails(capsys, ["zzz"], 2)
    assert all(name in known for name in ("'zzz'", "fit", "validate", "test", "predict", "check-data"))
    assert "lightning fit --config" in fails(capsys, ["--config", "a.yaml"], 2)


def test_a_word_of_lightning_sdk_is_handed_over(tmp_path, monkeypatch):
    info = tmp_path / "lightning_sdk-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-sdk\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nlightning = fake_sdk:run\n")
    (tmp_path / "fake_sdk.py").write_text("import sys\ndef run():\n    return len(sys.argv[1:]) * 10\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    assert main(["studio", "list"]) == 20


def test_python_m_exits_with_the_code_and_one_line():
    done = subprocess.run([sys.executable, "-m", "lightning_sal", "fti"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "lightning: error: unknown command 'fti'; did you mean fit?\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("out_dim", "out_dm"), "a.yaml:3: model.out_dm: unknown key; did you mean out_dim?"),
        (("out_dim: 4", "out_dim: four"), "a.yaml:3: model.out_dim: expected int, got 'four'"),
        (("max_steps", "max_stps"), "a.yaml:12: trainer.max_stps: unknown key; did you mean max_steps?"),
        (("data:", "dta:"), "a.yaml:4: dta: unknown key; did you mean data?"),
        (
            ("DemoModel", "DemoModle"),
            "a.yaml:2: model.class_path: module 'lightning.pytorch.demos.boring_classes' has no",
        ),
        (("lightning.pytorch.demos", "lightening"), "a.yaml:2: model.class_path: No module named 'lightening'"),
        (("{out_dim", "[out_dim"), "a.yaml:3: not valid YAML: "),
        (("accelerator", "max_steps"), "a.yaml:12: max_steps is there twice"),
        (("accelerator: cpu", "{{a}}: cpu"), "a.yaml:7: "),
        (("accelerator: cpu", "accelerator: c\x07pu"), "a.yaml: not valid YAML: "),
        (("max_steps: 1", "max_time: [1]"), "a.yaml:12: trainer.max_time: "),
        (("max_steps: 1", "max_steps: ${trainer.steps}"), "a.yaml:12: trainer.max_steps: Interpolation key "),
        (("max_steps: 1", "max_time: &m [*m]"), "a.yaml:12: *m stands within &m"),
        (("max_steps: 1", "max_time: " + 500 * "["), "a.yaml:12: lists and mappings in each other"),
        ((CONFIG, LAUGHS), "a.yaml:5: its aliases stand for more than 100000 values"),
        ((CONFIG, "- 1\n- 2"), "a.yaml: a config file holds `key: value` lines, and this one holds none"),
    ],
)
def test_a_mistake_in_a_config_is_one_line_with_its_place(config, capsys, change, message):
    path = config(CONFIG.replace(*change))
    assert fails(capsys, ["fit", "--config", path], 2).startswith(message)


@pytest.mark.parametrize("argv", [["--trainer", "part.yaml"], ["--trainer=part.yaml"]])
def test_a_part_of_a_config_is_bounded_too(config, capsys, argv):
    config(LAUGHS, "part.yaml")
    line = fails(capsys, ["fit", "--config", config(), *argv], 2)
    assert line == "part.yaml:5: its aliases stand for more than 100000 values"


def test_of_several_in_a_list_the_right_one_is_placed(config, capsys):
    callbacks = (
        "  callbacks:\n    - class_path: ModelCheckpoint\n    - class_path: lightning.{}\n    - class_path: Timer\n"
    )
    line = fails(capsys, ["fit", "--config", config(CONFIG + callbacks.format("Callbck"))], 2)
    assert line.startswith("a.yaml:15: trainer.callbacks.class_path: ")
    assert line.endswith("did you mean Callback?")


def test_an_override_of_an_unknown_class_says_so(config, capsys):
    first, second = config("model: {init_args: {out_dim: 3}}", "b.yaml"), config()
    line = fails(capsys, ["fit", "--config", first, "--config", second], 2)
    assert line == "a.yaml:3: model.out_dim: unknown key; a class is given by class_path and init_args"


def test_what_is_allowed_is_listed_where_nothing_is_near(config, capsys):
    line = fails(capsys, ["fit", "--config", config(CONFIG.replace("out_dim", "zzz"))], 2)
    assert line == "a.yaml:3: model.zzz: unknown key; known are learning_rate, out_dim"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model.init_args.out_dm=1"], "command line: model.out_dm: unknown key; did you mean out_dim?"),
        (["--model.out_dim", "four"], "command line: model.out_dim: expected int, got 'four'"),
        (["--trainer.max_stps", "1"], "command line: trainer.max_stps: unknown key; did you mean max_steps?"),
        (["--seed_everything=x"], "command line: seed_everything: expected bool or int, got 'x'"),
        (["--config"], "--config needs a file"),
        (["--config=nowhere.yaml"], "config file nowhere.yaml does not exist"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(config, capsys, argv, message):
    assert fails(capsys, ["fit", "--config", config(), *argv], 2) == message


def test_without_a_config_the_missing_parts_are_named(capsys):
    assert fails(capsys, ["fit"], 2).startswith("no data, model given")


def test_a_mistake_in_a_shared_part_is_placed_in_its_own_file(config, capsys):
    Path("base").mkdir()
    config("accelerator: cpu\nmax_stps: 3\n", "base/trainer.yaml")
    path = config(CONFIG.partition("trainer:")[0] + "trainer: base/trainer.yaml\n")
    line = fails(capsys, ["fit", "--config", path], 2)
    assert line == "base/trainer.yaml:2: trainer.max_stps: unknown key; did you mean max_steps?"


def test_an_override_reaches_the_values_that_depend_on_it(config, parsed):
    path = config(CONFIG.replace("out_dim: 4", 'out_dim: "${trainer.max_steps}"'))
    assert parsed("fit", "--config", path).model.init_args.out_dim == 1
    assert parsed("fit", "--config", path, "--trainer.max_steps=7").model.init_args.out_dim == 7
    later = config("trainer: {max_steps: 9}", "b.yaml")
    assert parsed("fit", "--config", path, "--config", later).model.init_args.out_dim == 9


def test_paths_are_stated_once_in_a_file_of_their_own(config, parsed):
    config("data: /mnt/data\n", "paths.yaml")
    text = CONFIG.replace("max_steps: 1", "default_root_dir: ${paths.data}/here\n  max_steps: 1")
    path = config(f"paths: paths.yaml\n{text}")
    assert parsed("fit", "--config", path).trainer.default_root_dir == "/mnt/data/here"
    assert parsed("fit", "--config", path, "--paths.data=/tmp").trainer.default_root_dir == "/tmp/here"


def test_later_configs_change_only_what_they_name(config, parsed):
    monitor = "lightning.pytorch.callbacks.LearningRateMonitor"
    first = config(CONFIG + f"  callbacks: [{{class_path: {monitor}}}]\n")
    second = config(
        f"""
        model: {{init_args: {{out_dim: 8}}}}
        trainer:
          callbacks+: [{{class_path: {monitor}, init_args: {{log_momentum: true}}}}]
        """,
        "b.yaml",
    )
    merged = parsed("fit", "--config", first, f"--config={second}")
    assert (merged.model.init_args.out_dim, merged.model.init_args.learning_rate) == (8, 0.5)
    assert [callback.init_args.log_momentum for callback in merged.trainer.callbacks] == [False, True]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo"])
def test_a_class_in_the_place_of_another_keeps_what_it_has_by_name(parsed, name):
    """Also what holds `${...}`, which cannot be checked while configs come together."""
    first = parsed("fit", "--config", "conf/cgpo.yaml").model
    model = parsed("fit", "--config", "conf/cgpo.yaml", "--config", f"conf/grpo/{name}.yaml").model
    assert model.class_path != first.class_path
    assert model.init_args.segmenter.init_args.source == first.init_args.segmenter.init_args.source
    assert model.init_args.policy == first.init_args.policy
    assert model.init_args.optimizer == first.init_args.optimizer


def test_a_class_in_the_place_of_another_drops_what_it_does_not_have(parsed):
    endpoint = ("--config", "conf/test.yaml", "--config", "conf/eval/endpoint.yaml")
    model = parsed("test", *endpoint, "--model.init_args.policy.model", "org/name").model
    assert model.init_args.policy.model == "org/name"
    assert not hasattr(model.init_args.policy, "lora")
    assert model.init_args.segmenter.class_path == "lightning_sal.segmenters.EVFSAM2.from_pretrained"


def test_a_conf_file_is_found_in_the_package(config, parsed):
    assert parsed("fit", "--config", "conf/quickstart.yaml").model.class_path.startswith("lightning_sal.")
    Path("conf").mkdir()
    own = config(name="conf/quickstart.yaml")
    assert parsed("fit", "--config", own).model.class_path.endswith("DemoModel")


def test_a_missing_conf_file_is_answered_with_the_nearest(config, capsys):
    line = fails(capsys, ["fit", "--config", "conf/quikstart.yaml"], 2)
    assert line == "config file conf/quikstart.yaml does not exist; did you mean conf/quickstart.yaml?"


def test_cgpo_takes_the_arguments_of_the_classes_it_extends(config, parsed):
    path = config(
        """
        model:
          class_path: lightning_sal.modules.CGPO
          init_args:
            policy: {model: tiny-scratch, lora: {rank: 8}}
            optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-4}}
            clip: [0.2, 0.3]
        data: {class_path: lightning.pytorch.demos.boring_classes.BoringDataModule}
        """
    )
    model = parsed("fit", "--config", path).model.init_args
    assert (model.policy.model, model.policy.lora.rank, model.policy.lora.alpha) == ("tiny-scratch", 8, 32.0)
    assert model.optimizer.init_args.lr == 1e-4
    assert model.clip == (0.2, 0.3)


def test_class_help_shows_the_documentation_of_inherited_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.help", "lightning_sal.modules.CGPO"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "how far the ratio of new to old policy may leave 1" in shown  # RolloutModule
    assert "Limit of response tokens" in shown  # PolicyModule
    assert "Longest prompt in tokens" in shown  # PolicyConfig


def test_a_top_level_optimizer_is_refused(config, capsys):
    path = config(CONFIG + "optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}\n")
    assert fails(capsys, ["fit", "--config", path], 2).startswith("a.yaml:13: optimizer: unknown key")


def test_runs_are_seeded_by_default(config, parsed):
    parsed("fit", "--config", config())
    first = torch.rand(3)
    assert parsed("fit", "--config", config()).seed_everything == 0
    assert torch.equal(first, torch.rand(3))
    assert parsed("fit", "--config", config(), "--seed_everything=5").seed_everything == 5


@pytest.mark.parametrize(("before", "now"), MOVED.items())
def test_a_module_that_has_moved_is_named_by_its_place_now(config, capsys, before, now):
    line = fails(capsys, ["fit", "--config", config(f"model:\n  class_path: {before}.Anything\n")], 2)
    assert line.startswith("a.yaml:2: model.class_path: ")
    assert line.endswith(f"; it is {now} now")
    assert find_spec(now) is not None
