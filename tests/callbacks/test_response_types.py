"""Response types of a module that is not ours, read back from TensorBoard's files."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_sal.callbacks import ranks, response_types
from lightning_sal.callbacks.response_types import ResponseTypes
from lightning_sal.evaluation import response_types as evaluation
from lightning_sal.evaluation.response_types import TYPES

HIGH, LOW = 0.9, 0.1


def rollouts(kinds):
    """Responses of the types named."""
    rewards = torch.tensor([HIGH if kind.startswith("Hr") else LOW for kind in kinds])
    return SimpleNamespace(
        groups=[SimpleNamespace(key="same", task="sod") for _ in kinds],
        rewards=SimpleNamespace(total=rewards),
        confidence=torch.tensor([HIGH if kind.endswith("Hc") else LOW for kind in kinds]),
        advantages=2 * rewards,
    )


class Foreign(L.LightningModule):
    """`samples` says for each step which types were sampled; None where nothing was."""

    def __init__(self, samples):
        super().__init__()
        self.layer, self.samples = nn.Linear(1, 1), samples

    def training_step(self, batch, batch_idx):
        kinds = self.samples[self.global_step]
        self.record = None if kinds is None else rollouts(kinds)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder, samples, *, logger=None, **options):
    trainer = L.Trainer(
        max_steps=len(samples), accelerator="cpu", log_every_n_steps=1000,
        logger=logger or TensorBoardLogger(folder, name=None, version=""),
        callbacks=[ResponseTypes(every_n_steps=2, **options)],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Foreign(samples), torch.utils.data.DataLoader(torch.ones(len(samples), 1)))


def logged(folder):
    """Step -> shares, and the steps of the figures."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    shares: dict[int, dict[str, float]] = {}
    for name in TYPES if events.Tags()["scalars"] else ():
        for scalar in events.Scalars(f"train/type/{name}"):
            shares.setdefault(scalar.step, {})[name] = scalar.value
    images = events.Images("rollouts/response_types") if events.Tags()["images"] else []
    return shares, [image.step for image in images]


def test_shares_and_figures_are_of_all_steps_since_the_last(tmp_path):
    samples = [["HrLc", "LrHc"], ["HrLc", "LrLc"], ["HrHc", "LrLc"], None, ["HrHc"]]
    fit(tmp_path, samples)
    shares, figures = logged(tmp_path)
    assert shares == {
        1: {"HrLc": 0.5, "LrHc": 0.25, "LrLc": 0.25, "HrHc": 0},
        3: {"HrLc": 0, "LrHc": 0, "LrLc": 0.5, "HrHc": 0.5},
    }
    assert figures == [1, 3]


def test_a_figure_that_no_response_came_before_is_left_out(tmp_path):
    fit(tmp_path, [None, None, None, ["HrLc", "LrHc"]])
    assert logged(tmp_path)[1] == [3]


def test_given_thresholds_are_taken(tmp_path):
    fit(tmp_path, [["HrLc", "LrHc"], ["LrHc", "LrLc"]], reward_threshold=0.95, confidence_threshold=0.05)
    assert logged(tmp_path)[0][1] == {"LrHc": 1, "LrLc": 0, "HrLc": 0, "HrHc": 0}


def test_the_figure_has_the_advantages_as_trained_and_those_of_others(tmp_path, monkeypatch):
    """Rewards 0.9 and 0.1 to one prompt: RLOO 0.8 and -0.8; the two steps are not compared with each other."""
    drawn = []
    figure = response_types.figure
    monkeypatch.setattr(response_types, "figure", lambda *parts: drawn.append(parts[2]) or figure(*parts))
    fit(tmp_path, [["HrLc", "LrHc"], ["HrLc", "LrHc"]])
    (advantages,) = drawn
    torch.testing.assert_close(advantages["as trained"], torch.tensor([1.8, 0.2] * 2))
    torch.testing.assert_close(advantages["CGPO"], torch.tensor([0.8, -0.8] * 2))
    torch.testing.assert_close(advantages["RLOO"], torch.tensor([0.8, -0.8] * 2))


@pytest.mark.parametrize("told", [True, False])
def test_the_figure_has_every_variant_of_cgpo(told, tmp_path, monkeypatch):
    """That of the answer where it is known which tokens those are; here the second half of each response."""
    drawn, probability = [], torch.tensor([[0.5, 0.08, 0.4, 0.9], [0.9, 0.4, 0.3, 0.3]])

    def answers(policy, responses, mask):
        if not told:
            raise ValueError("the text of a response is not that of its tokens")
        return mask & torch.tensor([False, False, True, True])

    def recorded(kinds):
        mask = torch.tensor([[True, True, True, False], [True] * 4])
        sampled = SimpleNamespace(logp=probability.log(), mask=mask)
        return SimpleNamespace(**vars(rollouts(kinds)), rollout=sampled, responses=[None, None])

    class Own(Foreign):
        policy = "the policy"

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.record = recorded(self.samples[self.global_step])
            return loss

    monkeypatch.setattr(response_types, "answer_mask", answers)
    monkeypatch.setattr(response_types, "figure", lambda *parts: drawn.append(parts[2]) or figure(*parts))
    figure = evaluation.figure
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=TensorBoardLogger(tmp_path), callbacks=[ResponseTypes(every_n_steps=2)],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1000,
    )  # fmt: skip
    trainer.fit(Own([["HrLc", "LrHc"]] * 2), torch.utils.data.DataLoader(torch.ones(2, 1)))
    (advantages,) = drawn
    nan = float("nan")
    expected = {
        "CGPO answer": [0.9 - 0.4, 0.1 - 0.3] * 2 if told else [nan] * 4,
        "CGPO geometric": [0.9 - 0.016 ** (1 / 3), 0.1 - 0.0324**0.25] * 2,
        "CGPO centred": [0.8, -0.8] * 2,
        "CGPO calibrated": [0.4, -0.4] * 2,  # reward falls with confidence, so the mean is promised
        "BatchLOO": [0.8, -0.8] * 2,
    }
    for name, values in expected.items():
        torch.testing.assert_close(advantages[name], torch.tensor(values), equal_nan=True)


def test_other_loggers_get_the_shares_and_need_no_matplotlib(tmp_path, monkeypatch):
    def refuse():
        raise ValueError("no matplotlib")

    monkeypatch.setattr(response_types, "require_matplotlib", refuse)
    fit(tmp_path, [["HrLc"], ["LrHc"]], logger=CSVLogger(tmp_path, name=None, version=""))
    assert "train/type/HrLc" in (tmp_path / "metrics.csv").read_text()
    with pytest.raises(ValueError, match="no matplotlib"):
        fit(tmp_path / "board", [["HrLc"], ["LrHc"]])


def test_values_are_over_all_processes_however_much_each_sampled(monkeypatch):
    """Two processes as threads, and what they would exchange through `torch.distributed`."""
    barrier, rank_of, sent, entries = threading.Barrier(2, timeout=60), threading.local(), {}, []

    def all_gather_object(parts, own):
        sent[rank_of.this] = own
        barrier.wait()
        parts[:] = sent[0], sent[1]

    exchange = {"get_world_size": lambda: 2, "all_gather_object": all_gather_object}
    always = dict.fromkeys(("is_available", "is_initialized"), lambda: True)
    monkeypatch.setattr(ranks, "distributed", SimpleNamespace(**exchange, **always))

    def run(rank, samples):
        rank_of.this = rank
        logger = SimpleNamespace(log_metrics=lambda values, step: entries.append((rank, step, values)))
        trainer: Any = SimpleNamespace(global_step=0, is_global_zero=rank == 0, loggers=[logger])
        callback, module = ResponseTypes(every_n_steps=len(samples)), Foreign(samples)
        callback.on_train_start(trainer, module)
        for kinds in samples:
            module.record = None if kinds is None else rollouts(kinds)
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, module)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2), [[["HrLc", "LrHc", "LrHc"], ["LrHc"]], [None, ["HrHc"]]]))
    assert entries == [(0, 1, {f"train/type/{n}": s for n, s in zip(TYPES, [0, 0.6, 0.2, 0.2], strict=True)})]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ResponseTypes(every_n_steps=0)
