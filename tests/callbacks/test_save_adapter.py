"""Adapters beside checkpoints: loaded by peft alone they say what the checkpoint says, and they go when it goes."""

import gc
import json
import shutil
import weakref
from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import fully_shard

from lightning_sal.callbacks import SaveAdapter
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.tiny.scenes import scene_group
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
from tests.distributed.processes import in_processes
from tests.modules.parts import scenes, sft, trainer

TINY = PolicyConfig("tiny", lora=LoRA(rank=4))


def adapted():
    """A plain network with adapters, the same each time."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    return get_peft_model(layers, LoraConfig(r=2, target_modules=["0", "2"]))


class Plain(L.LightningModule):
    """A project of its own: adapters somewhere, and a score that falls."""

    def __init__(self, **parts):
        super().__init__()
        self.parts = nn.ModuleDict(parts or {"net": adapted()})

    def training_step(self, batch, batch_idx):
        self.log("score", -float(batch_idx), sync_dist=True)
        return sum(part(batch).square().sum() for part in self.parts.values())

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def fit(folder, *callbacks, module=None, steps=3, **options):
    module = module or Plain()
    options = {"enable_checkpointing": True, "max_steps": steps, **options}
    run = trainer(folder, callbacks=[*callbacks], **options)
    run.fit(module, torch.utils.data.DataLoader(torch.ones(steps, 2, 3), batch_size=None))
    return module, run


def adapters_of(checkpoint, prefix):
    """The weights that peft should have written, out of a checkpoint."""
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {n.removeprefix(prefix).replace(".default", ""): w for n, w in weights.items() if "lora_" in n}


def assert_same(folder, checkpoint, prefix):
    written, wanted = load_file(folder / "adapter_model.safetensors"), adapters_of(checkpoint, prefix)
    assert set(written) == set(wanted)
    assert all(torch.equal(written[name], weight) for name, weight in wanted.items())


def log_probs(policy):
    groups = [scene_group(0, task, 3) for task in ("sod", "cosod")]
    policy.eval()
    with torch.no_grad():
        return policy.score(policy.encode(groups), *policy.encode_responses([group.response for group in groups]))


def test_peft_loads_the_adapters_of_each_checkpoint_and_they_say_the_same(tmp_path):
    kept = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    run = trainer(tmp_path, max_steps=2, enable_checkpointing=True, callbacks=[SaveAdapter(), kept])
    run.fit(sft(policy=TINY), datamodule=scenes(streams=["sft"], batch_size=2))
    scores = [log_probs(FastPolicy(replace(TINY, lora=None)))]
    for step in (1, 2):
        trained = sft(policy=TINY)
        trained.configure_model()
        trained.load_state_dict(
            torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)["state_dict"], strict=False
        )
        policy = FastPolicy(replace(TINY, lora=None))
        PeftModel.from_pretrained(policy.net, tmp_path / f"step={step}.adapter")  # replaces the layers in place
        scores.append(log_probs(policy))
        torch.testing.assert_close(scores[-1], log_probs(trained.policy), atol=1e-6, rtol=0)
    assert (scores[1] - scores[0]).abs().max() > 1e-3
    assert (scores[2] - scores[1]).abs().max() > 1e-3


def test_the_base_model_is_named_as_it_was_configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EMBEDDED_POLICIES["tiny"], "models/qwen")
    kept = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1)
    run = trainer(tmp_path, max_steps=1, enable_checkpointing=True, callbacks=[SaveAdapter(), kept])
    run.fit(sft(policy=replace(TINY, model="models/qwen")), datamodule=scenes(streams=["sft"], batch_size=1))
    config = json.loads((tmp_path / "step=1.adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("models/qwen", 4, 32.0)


def test_adapters_go_with_the_checkpoints_that_top_k_drops(tmp_path):
    """The score falls with every step, so that the two last stay, and `last`, which every step replaces."""
    kept = ModelCheckpoint(
        tmp_path, "{step}", monitor="score", mode="min", save_top_k=2, save_last=True, every_n_train_steps=1
    )
    module, run = fit(tmp_path, SaveAdapter(), kept, steps=5)
    folders = {path.stem for path in tmp_path.glob("*.adapter")}
    assert folders == {path.stem for path in tmp_path.glob("*.ckpt")} == {"step=4", "step=5", "last"}
    for name in folders:
        assert_same(tmp_path / f"{name}.adapter", tmp_path / f"{name}.ckpt", "parts.net.")
    assert not [*tmp_path.glob(".*")]
    run.save_checkpoint(tmp_path / "by_hand.ckpt")
    loaded = PeftModel.from_pretrained(adapted().unload(), tmp_path / "by_hand.adapter")
    torch.testing.assert_close(loaded(torch.ones(3)), module.parts["net"](torch.ones(3)), atol=0, rtol=0)


def test_a_checkpoint_of_an_earlier_run_without_adapters_is_removed_all_the_same(tmp_path):
    (tmp_path / "old.ckpt").touch()
    _, run = fit(tmp_path, SaveAdapter())
    run.strategy.remove_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "old.ckpt").exists()


def test_a_second_fit_of_a_trainer_writes_the_second_module(tmp_path):
    module, run = fit(tmp_path, SaveAdapter(), steps=1)
    first = weakref.ref(module.parts["net"])
    run.fit_loop.epoch_loop.max_steps = 3
    run.fit(Plain(), torch.utils.data.DataLoader(torch.ones(2, 2, 3), batch_size=None))
    run.save_checkpoint(tmp_path / "second.ckpt")
    assert_same(tmp_path / "second.adapter", tmp_path / "second.ckpt", "parts.net.")
    del module
    gc.collect()
    assert first() is None  # let go, so that memory holds one of them


def test_of_several_the_named_one_is_written(tmp_path):
    module = Plain(one=adapted(), two=adapted())
    with pytest.raises(ValueError, match=r"several: set attribute to one of parts\.one, parts\.two$"):
        fit(tmp_path, SaveAdapter(), module=module)
    with pytest.raises(ValueError, match=r"nothing at two: set attribute to one of parts\.one, parts\.two$"):
        fit(tmp_path, SaveAdapter("two"), module=module)
    with pytest.raises(ValueError, match=r"^SaveAdapter: there are several, .*: keep one$"):
        fit(tmp_path, SaveAdapter("parts.one"), SaveAdapter("parts.two"), module=module)
    _, run = fit(tmp_path, SaveAdapter("parts.two"), module=module)
    run.save_checkpoint(tmp_path / "a.ckpt")
    weights = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    torch.save({"state_dict": {n: w for n, w in weights.items() if ".two." in n}}, tmp_path / "two.ckpt")
    assert_same(tmp_path / "a.adapter", tmp_path / "two.ckpt", "parts.two.")


def two_ranks(world_size, rank, folder):
    """DDP; FSDP2 with frozen weights in shards and adapters whole; and adapters in shards."""
    kept = ModelCheckpoint(folder / "ddp", "{step}", monitor="score", mode="max", every_n_train_steps=1)
    fit(folder, SaveAdapter(), kept, devices=2, strategy="ddp", use_distributed_sampler=False)
    kept = ModelCheckpoint(folder / "fsdp", "{step}", every_n_train_steps=1)
    strategy = ModelParallelStrategy(world_size, tensor_parallel_size=1, save_distributed_checkpoint=False)
    options = {"strategy": strategy, "devices": world_size, "enable_checkpointing": True}
    run = trainer(folder, max_steps=1, callbacks=[SaveAdapter(), kept], **options)
    run.fit(sft(policy=TINY), datamodule=scenes(streams=["sft"], batch_size=1))
    module = Plain()
    fully_shard(module.parts["net"])
    try:
        SaveAdapter().on_fit_start(SimpleNamespace(strategy=strategy, callbacks=[]), module)
    except ValueError as error:
        (folder / f"error-{rank}").write_text(str(error))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(two_ranks, (2,), folder)
    return folder


@pytest.mark.parametrize(("strategy", "prefix"), [("ddp", "parts.net."), ("fsdp", "policy.net.")])
def test_two_processes_write_whole_adapters_once(strategy, prefix, ranks):
    folder = ranks / strategy
    assert sorted(path.name for path in folder.iterdir()) == ["step=1.adapter", "step=1.ckpt"]
    assert_same(folder / "step=1.adapter", folder / "step=1.ckpt", prefix)


def test_adapters_in_shards_are_refused(ranks):
    for rank in range(2):
        message = (ranks / f"error-{rank}").read_text()
        assert message.startswith(
            "SaveAdapter: 4 weights that are trained lie in shards, first base_model.model.0.lora_A"
        )


def test_a_module_without_adapters_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^SaveAdapter: Plain has no adapters: .*$"):
        fit(tmp_path, SaveAdapter(), module=Plain(net=nn.Linear(3, 1)))


def test_a_checkpoint_in_a_bucket_is_refused(tmp_path):
    _, run = fit(tmp_path, SaveAdapter())
    with pytest.raises(ValueError, match=r"^SaveAdapter: memory://a\.ckpt is in no local folder: .*$"):
        run.save_checkpoint("memory://a.ckpt")


@pytest.mark.parametrize(
    "strategy",
    [
        object.__new__(DeepSpeedStrategy),
        FSDPStrategy(),
        ModelParallelStrategy(2, 1, save_distributed_checkpoint=True),
    ],
)
def test_strategies_that_write_shards_are_refused(strategy):
    with pytest.raises(ValueError, match=rf"^SaveAdapter: {type(strategy).__name__} writes checkpoints in shards: .*$"):
        SaveAdapter().on_fit_start(SimpleNamespace(strategy=strategy, callbacks=[]), Plain())
