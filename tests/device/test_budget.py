"""How often a step makes the host wait, copies from it, or launches kernels, held to what must be.

The budgets follow from what a step consists of, and none grows with the number of responses, of their tokens, or of the
metrics that are logged. Decoding has budgets of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_sal.modules import CGPO, DAPO, GRPO, SFT, BatchLOO
from tests.device.parts import Counting, module, scenes, trainer
from tests.device.test_fit import SPREAD

DECODING = ("policy/sampling.py", "policy/decoding")
IMAGES = ("policy/images.py", "policy/backbone.py")  # each is sent to the device, which does not wait

# Reads of the loss, which stays on the device until it is known: by Lightning, for the progress bar and the loggers, and by
# `ExactResume`, which every fit has, for checkpoints
LOSS = {"elsewhere": 3, "internals/trainer.py": 3}


@dataclass(frozen=True)
class Step:
    """What a step of RL consists of.

    Args:
        parts: Micro-batches.
        updates: Passes over them.
        rounds: Of sampling.
        reference: Whether a reference scores the responses too.
        measured: Whether a term of the reward is on the device.
        line: Whether a line is fitted, which is logged.
        answers: Whether it is told where answers stand.
    """

    parts: int
    updates: int = 1
    rounds: int = 1
    reference: bool = False
    measured: bool = True
    line: bool = False
    answers: bool = False

    @property
    def waits(self) -> dict[str, int]:
        """File -> how often it may wait."""
        phases = 4 * self.rounds + 1  # encode, sample, segment, reward in each round; update
        return {
            **LOSS,
            "inference/responses.py": self.rounds,  # lengths, confidence and what was cut off, together
            "rewards/total.py": self.rounds * self.measured,  # all terms together
            "modules/base.py": 2 * phases,  # the clock at both ends
            "modules/rollout.py": 1,  # all that is logged, together
            "modules/cgpo.py": int(self.line),
        }

    @property
    def queued(self) -> int:
        """What may be sent without waiting: ids, mask, positions and their ends of prompts; rewards; which rows and prompts
        are in a micro-batch; and in each pass over one where its tokens stand."""
        passes = self.parts * (self.updates + self.reference)
        return 4 * self.rounds + 1 + 2 * self.parts + 1 + passes + self.answers


def counted(kind, tmp_path, *, data, **options):
    """The run's trainer, and what the second of two steps cost."""
    counts = Counting()
    loop = trainer(tmp_path, max_steps=2, callbacks=[counts], logger=CSVLogger(tmp_path), gradient_clip_val=1.0)
    loop.fit(module(kind, **options), datamodule=scenes(**data))
    return loop, counts.counts.outside(*DECODING)


def by_file(places):
    found = Counter()
    for place, count in places.items():
        found["elsewhere" if place.file.startswith("test_") else place.file] += count
    return found


def within(found, budget):
    over = {file: count for file, count in found.items() if count > budget.get(file, 0)}
    assert not over, f"over the budget of {budget}"


RL = {
    "one response a prompt": (CGPO, {"data": {"streams": ["rl"], "batch_size": 3}}, Step(1, measured=False)),
    "a micro-batch a response": (
        CGPO,
        {"data": {"streams": ["rl"], "batch_size": 3}, "micro_batch_size": 1},
        Step(3, measured=False),
    ),
    "all that varies CGPO": (
        CGPO,
        {
            "data": {"streams": ["rl"], "batch_size": 3},
            "micro_batch_size": 1,
            "confidence_over": "answer",
            "confidence_mean": "geometric",
            "normalise": "scale",
            "calibrate": True,
        },
        Step(3, measured=False, line=True, answers=True),
    ),
    "the batch as a baseline": (
        BatchLOO,
        {"data": {"streams": ["rl"], "batch_size": 3}},
        Step(1, measured=False),
    ),
    "groups, updates, a reference": (
        GRPO,
        {
            "data": {"streams": ["rl"], "batch_size": 3},
            "responses_per_prompt": 2,
            "updates_per_rollout": 2,
            "beta": 0.04,
            **SPREAD,
        },
        Step(2, updates=2, reference=True),
    ),
    "dynamic sampling": (
        DAPO,
        {
            "data": {"streams": ["rl"], "batch_size": 3},
            "responses_per_prompt": 2,
            "prompts_per_step": 1,
            "overlong_buffer": 4,
            **SPREAD,
        },
        Step(1),
    ),
}


@pytest.mark.parametrize(("kind", "options", "step"), RL.values(), ids=RL)
def test_a_step_of_reinforcement_learning(kind, options, step, tmp_path):
    loop, counts = counted(kind, tmp_path, **options)
    if kind is DAPO:
        assert float(loop.logged_metrics["train/dynamic_sampling/rounds"]) == step.rounds
    assert len(loop.logged_metrics) > 30
    within(by_file(counts.waits), step.waits)
    within(
        by_file(counts.copies), {"rewards/total.py": step.measured}
    )  # of the term of this test, which makes a tensor there
    assert counts.outside(*IMAGES).queued.total() <= step.queued, str(counts)


def test_a_step_of_supervised_fine_tuning(tmp_path):
    _, counts = counted(SFT, tmp_path, data={"streams": ["sft"], "batch_size": 3}, micro_batch_size=1)
    within(by_file(counts.waits), {**LOSS, "policy/log_probs.py": 3})
    assert not counts.copies
    queued = counts.outside(*IMAGES).queued.total()
    assert queued <= 2 + 3 * 4, str(counts)  # ids and lengths of the responses; each prompt, as above
