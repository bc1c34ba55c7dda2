"""Options that pages name exist: ours on every page, and both sides of the tables for those who come from elsewhere."""

import inspect
import re

import lightning as L
import pytest
import torch

from lightning_sal import datamodules, modules, rewards, samplers
from lightning_sal.cli import main
from lightning_sal.policy.config import LoRA, PolicyConfig
from tests.docs.pages import PAGES, ROOT, in_checkout, name, place_exists, prose

PAGE = ROOT / "docs/coming_from.md"
SPAN = re.compile(r"`([^`]+)`")
KEY = re.compile(r"`((?:trainer|(?:model|data)\.init_args)\.[a-z_.]+)(?:: [^`]*)?`")


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
    missing = [option for _, ours in rows(heading) for option in ours if not exists(option, capsys)]
    assert not missing, f"{PAGE.name}, {heading}: there is no {', '.join(missing)}"


@in_checkout
@pytest.mark.parametrize("page", [page for page in PAGES if page != PAGE], ids=name)  # which names keys of others too
def test_every_key_that_a_page_names_exists(page, capsys):
    named = {match[1] for match in KEY.finditer(prose(page.read_text()))}
    missing = sorted(key for key in named if not exists(key, capsys))
    assert not missing, f"{name(page)}: there is no {', '.join(missing)}"


def exists(option, capsys):
    if option.startswith("conf/"):
        return (ROOT / option).is_file()
    if option.startswith(("lightning-sal ", "lightning ")):
        return command_exists(*option.split()[1:], capsys=capsys)
    if option.startswith("-"):
        return option in ("--ckpt_path",)  # of Lightning's `fit`, whose own help takes seconds
    if option.startswith("lightning"):
        return place_exists(option)
    place, _, key = option.rpartition(".")
    return place not in HOLDERS or any(key in parameters(each) for each in HOLDERS[place])


def command_exists(command, *options, capsys):
    if command == "fit":
        return True
    with pytest.raises(SystemExit):
        main([command, "--help"])
    helped = capsys.readouterr().out
    return all(option in helped for option in options)


@in_checkout
def test_every_option_of_trl_exists():
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    known = parameters(trl.GRPOConfig) | parameters(trl.SFTConfig) | parameters(trl.GRPOTrainer)
    for theirs, _ in rows("From TRL"):
        for option in theirs:
            assert option.partition("=")[0] in known or hasattr(trl, option), option


@in_checkout
def test_every_class_of_pysodmetrics_exists():
    theirs = pytest.importorskip("py_sod_metrics", reason="PySODMetrics is not installed")
    own = {name for name in dir(theirs) if name[0].isupper()} | {"step", "get_results"}
    listed = {name for names, _ in rows("From PySODMetrics") for name in names}
    assert listed <= own
    everything = {name for name in own if not name.endswith("Handler")}
    assert everything <= listed, f"the page does not say what becomes of {everything - listed}"
