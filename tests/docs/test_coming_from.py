"""The tables of options for those who come from elsewhere: what they name exists, on our side and in what is installed."""

import inspect
import re
from importlib import import_module

import lightning as L
import pytest
import torch

from lightning_sal import datamodules, modules, rewards, samplers
from lightning_sal.cli import main
from lightning_sal.policy.config import LoRA, PolicyConfig
from tests.docs.pages import ROOT, in_checkout, prose

PAGE = ROOT / "docs/coming_from.md"
SPAN = re.compile(r"`([^`]+)`")


def classes(module):
    return [each for name in module.__all__ if inspect.isclass(each := getattr(module, name))]


# Where a key stands -> the classes of which one must take it.
HOLDERS = {
    "trainer": [L.Trainer],
    "data.init_args": classes(datamodules),
    "model.init_args": classes(modules),
    "model.init_args.policy": [PolicyConfig],
    "model.init_args.policy.lora": [LoRA],
    "model.init_args.optimizer.init_args": [torch.optim.AdamW],
    "model.init_args.reward.init_args": [rewards.Reward],
    "model.init_args.sampler.init_args": [samplers.VLLMSampler],
}


def parameters(each):
    """What a class takes, its bases' parameters included, which it passes on."""
    return {name for base in each.__mro__ for name in inspect.signature(base.__init__).parameters}


def rows(heading):
    """The first two cells of each row of the tables below a heading."""
    section = prose(PAGE.read_text()).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert lines, f"{heading} has no table"
    return [(SPAN.findall(theirs), SPAN.findall(ours)) for theirs, ours, *_ in lines[1:]]


def headings():
    return re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE) if PAGE.is_file() else []


@in_checkout
@pytest.mark.parametrize("heading", headings())
def test_every_option_of_ours_exists(heading, capsys):
    missing = [name for _, ours in rows(heading) for name in ours if not exists(name, capsys)]
    assert not missing, f"{PAGE.name}, {heading}: there is no {', '.join(missing)}"


def exists(name, capsys):
    if name.startswith("conf/"):
        return (ROOT / name).is_file()
    if name.startswith(("lightning-sal ", "lightning ")):
        return command_exists(*name.split()[1:], capsys=capsys)
    if name.startswith("-"):
        return name in ("--ckpt_path",)  # of Lightning's `fit`, whose own help takes seconds
    if name.startswith("lightning"):
        return place_exists(name)
    place, _, key = name.rpartition(".")
    return any(key in parameters(each) for each in HOLDERS[place])


def command_exists(command, *options, capsys):
    if command == "fit":
        return True
    with pytest.raises(SystemExit):
        main([command, "--help"])
    helped = capsys.readouterr().out
    return all(option in helped for option in options)


def place_exists(name):
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@in_checkout
def test_every_option_of_trl_exists():
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    known = parameters(trl.GRPOConfig) | parameters(trl.SFTConfig) | parameters(trl.GRPOTrainer)
    for theirs, _ in rows("From TRL"):
        for name in theirs:
            assert name.partition("=")[0] in known or hasattr(trl, name), name


@in_checkout
def test_every_class_of_pysodmetrics_exists():
    theirs = pytest.importorskip("py_sod_metrics", reason="PySODMetrics is not installed")
    own = {name for name in dir(theirs) if name[0].isupper()} | {"step", "get_results"}
    listed = {name for names, _ in rows("From PySODMetrics") for name in names}
    assert listed <= own
    everything = {name for name in own if not name.endswith("Handler")}
    assert everything <= listed, f"the page does not say what becomes of {everything - listed}"
