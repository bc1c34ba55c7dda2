"""The guard on modules that know nothing of saliency: what stops them, and what is saved."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from lightning_sal.callbacks import FiniteGuard
from lightning_sal.samples import Batch, ImageGroup, Phased
from tests.distributed.processes import in_processes


class Squares(L.LightningModule):
    """Batches are numbers x; the loss is (w x)^2 or what a batch asks for, in `updates_per_rollout` updates a step."""

    def __init__(self, updates_per_rollout=1):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.tensor(7.0), requires_grad=False)
        self.updates_per_rollout = updates_per_rollout

    def training_step(self, batch, batch_idx):
        for _ in range(self.updates_per_rollout - 1):
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.trainer.strategy.backward((self.weight * batch["x"]) ** 2, None)
            self.trainer.strategy.optimizer_step(optimizer, lambda: None)
        if batch.get("root"):  # 0, and its gradient infinite
            return (self.weight - self.weight.detach()).sqrt()
        return (self.weight * batch["x"]) ** 2

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def batch(x, **more):
    return {"x": torch.tensor(float(x)), **more}


def fit(folder, batches, module=None, **options):
    module = module or Squares()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[FiniteGuard(folder / "replay")], **options,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return module


def load(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(batch("nan"), "loss nan, gradient norm nan"), (batch(1, root=True), "loss 0, gradient norm inf")],
)
def test_a_loss_or_a_gradient_stops_before_the_update(bad, message, tmp_path):
    """The file holds the weights that two steps of Adam at rate 0.1 leave: each moves by the rate."""
    module = Squares()
    with pytest.raises(ValueError, match=rf"step 2, rank 0: {message}.*lightning-sal replay .*step=2-rank=0.replay"):
        fit(tmp_path, [batch(1), batch(1), bad, batch(1)], module)
    assert float(module.weight.detach()) == pytest.approx(0.8, abs=0.01)
    saved = load(tmp_path / "replay" / "step=2-rank=0.replay")
    assert saved["step"] == 2
    assert saved["state_dict"] == {"weight": module.weight.detach()}
    assert float(saved["optimizer_states"][0]["state"][0]["step"]) == 2
    assert saved["batch"]["x"].equal(bad["x"]) or saved["batch"]["x"].isnan()
    assert saved["trainer"]["precision"] == "32-true"


def test_a_finite_run_writes_nothing(tmp_path):
    fit(tmp_path, [batch(1), batch(1e15)])
    assert not (tmp_path / "replay").exists()


def test_with_several_updates_the_weights_are_those_before_the_first(tmp_path):
    """Four updates came before the step that fails, two before its own third."""
    module = Squares(updates_per_rollout=3)
    with pytest.raises(ValueError, match="step 1, rank 0: loss 0, gradient norm inf"):
        fit(tmp_path, [batch(1), batch(1, root=True)], module)
    saved = load(tmp_path / "replay" / "step=1-rank=0.replay")
    assert float(saved["state_dict"]["weight"]) == pytest.approx(0.7, abs=0.02)
    assert float(saved["optimizer_states"][0]["state"][0]["step"]) == 3
    assert float(module.weight.detach()) == pytest.approx(0.5, abs=0.04)


def test_the_buffers_are_those_of_the_start_of_the_step(tmp_path):
    """Two steps were counted before the one that fails, which counts itself before its loss."""

    class Counting(Squares):
        def __init__(self):
            super().__init__()
            self.steps: torch.Tensor
            self.register_buffer("steps", torch.zeros(()), persistent=False)

        def training_step(self, batch, batch_idx):
            self.steps += 1
            return super().training_step(batch, batch_idx)

    module = Counting()
    with pytest.raises(ValueError, match="step 2, rank 0"):
        fit(tmp_path, [batch(1), batch(1), batch("nan")], module)
    assert module.steps == 3
    assert load(tmp_path / "replay" / "step=2-rank=0.replay")["buffers"] == {"steps": torch.tensor(2.0)}


def test_batches_of_image_groups_are_read_back_by_their_three_classes_alone(tmp_path):
    image, mask = torch.randint(0, 256, (4, 6, 3), dtype=torch.uint8), torch.rand(1, 4, 6) > 0.5
    group = ImageGroup("a", "sod", (image,), (mask,), "said", ("a.png",))

    class OfGroups(Squares):
        def training_step(self, batch, batch_idx):
            return self.weight * float("nan")

    with pytest.raises(ValueError, match="FiniteGuard"):
        fit(tmp_path, [Phased("sft", Batch((group,)))], OfGroups())
    with torch.serialization.safe_globals([Phased, Batch, ImageGroup]):
        phase, groups = load(tmp_path / "replay" / "step=0-rank=0.replay")["batch"]
    read = groups.groups[0]
    assert (phase, read.key, read.task, read.response, read.paths) == ("sft", "a", "sod", "said", ("a.png",))
    assert torch.equal(read.images[0], image)
    assert torch.equal(read.masks[0], mask)


def test_a_file_of_an_earlier_run_is_kept(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="FiniteGuard"):
            fit(tmp_path, [batch("inf")])
    names = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert names == ["step=0-rank=0-2.replay", "step=0-rank=0.replay"]


class PerRank(L.LightningModule):
    """A loss that is infinite on rank 1 alone, and whose gradient is 0 on every rank."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def training_step(self, batch, batch_idx):
        return self.weight * 0 + (float("inf") if self.global_rank == 1 and batch_idx == 1 else 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def two_ranks(world_size, rank, folder):
    try:
        fit(folder, [batch(1)] * 6, PerRank(), devices=world_size, strategy="ddp", use_distributed_sampler=False)
    except Exception as error:
        (folder / f"error-{rank}.txt").write_text(str(error))


def test_all_ranks_stop_at_the_same_step_and_the_one_at_fault_is_named(tmp_path):
    in_processes(two_ranks, (2,), tmp_path)
    for rank in range(2):
        assert "step 1, rank 1: loss inf" in (tmp_path / f"error-{rank}.txt").read_text()
        assert "step=1-rank=1.replay" in (tmp_path / f"error-{rank}.txt").read_text()
    files = {path.name: load(path)["rank"] for path in (tmp_path / "replay").iterdir()}
    assert files == {"step=1-rank=0.replay": 0, "step=1-rank=1.replay": 1}


def test_weights_in_shards_are_refused():
    trainer = SimpleNamespace(strategy=ModelParallelStrategy(1, tensor_parallel_size=1))
    with pytest.raises(ValueError, match="ModelParallelStrategy keeps them in shards: take it out"):
        FiniteGuard().on_train_start(trainer, None)
