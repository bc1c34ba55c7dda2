"""Confidence-guided policy optimisation, as published and in variants, and its control without confidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from lightning_sal.inference.answers import answer_mask
from lightning_sal.modules.experience import ConfidenceMeasure, Experience
from lightning_sal.modules.gathering import moments_over_ranks
from lightning_sal.modules.rollout import RolloutModule
from lightning_sal.objectives import (
    Moments,
    batch_leave_one_out_advantages,
    calibrated,
    calibration_line,
    centred,
    cgpo_advantages,
    fit_sums,
    geometric_confidence,
    scaled,
    token_confidence,
)
from lightning_sal.objectives.calibration import SUMS
from lightning_sal.transfer import read

Over = Literal["response", "answer"]
Mean = Literal["arithmetic", "geometric"]
Normalise = Literal["none", "centre", "scale"]

_MEANS: dict[Mean, Callable[[Tensor, Tensor], Tensor]] = {
    "arithmetic": token_confidence,
    "geometric": geometric_confidence,
}
_NORMALISED: dict[Normalise, Callable[[Tensor, Moments], Tensor]] = {"centre": centred, "scale": scaled}


class CGPO(RolloutModule):
    """CGPO: one response a prompt, A = r - c.

    | advantage | ratio | clip | reduction |
    |---|---|---|---|
    | reward minus the policy's own confidence | token | (0.2, 0.2) | mean over tokens, then over responses |

    Where GRPO compares a response with others to the same prompt, CGPO compares its reward with how confident the policy was
    of it: no group, no reference model. SFT steps in between (ISR) stand in for a KL penalty.

    The first four options make variants of it, which go together in any way: `confidence_over` and `confidence_mean` say
    what c is, `calibrate` maps it to a reward, `normalise` works on r - c at the end. By default it is CGPO as published.
    What is logged and drawn as confidence is c as published, whatever they say.

    Args:
        confidence_over: Tokens that c is the mean of: response, all; answer, those of what is answered, without the tags
            around it, or all where no answer can be read.
        confidence_mean: arithmetic, the mean of their probabilities; geometric, the exponent of their mean log-probability.
        normalise: none; centre, the mean of r - c over the step, on all ranks, is taken off it; scale, and that is divided
            by their standard deviation there + 1e-4. A step of one response on all ranks then teaches nothing.
        calibrate: Compare the reward with the reward that c promises: a + b c, held within [0, 1], a line of least squares
            with b >= 0 through all pairs (c, r) of earlier steps on all ranks, each step with 0.95 of the weight of the
            next. In the first step it is c. Logged as `train/calibration/intercept` and `train/calibration/slope`.
        **kwargs: As for `RolloutModule`; the total of the reward must lie in [0, 1].

    Raises:
        ValueError: If it may not, by the bounds and the weights of the terms; or for a value that an option does not have.
    """

    memory: ClassVar[float] = 0.95
    calibration_bits: Tensor

    def __init__(
        self,
        *,
        confidence_over: Over = "response",
        confidence_mean: Mean = "arithmetic",
        normalise: Normalise = "none",
        calibrate: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reward.require_probability("CGPO")
        for value, known in ((confidence_over, Over), (confidence_mean, Mean), (normalise, Normalise)):
            if value not in get_args(known):
                raise ValueError(f"CGPO: '{value}' is none of {', '.join(get_args(known))}")
        self.confidence_over: Over = confidence_over
        self.confidence_mean: Mean = confidence_mean
        self.normalise: Normalise = normalise
        self.calibrate = calibrate
        self._step: Moments | None = None
        if calibrate:  # float64 whatever the module is converted to: the buffer holds bits
            self.register_buffer("calibration_bits", torch.zeros(SUMS, dtype=torch.float64).view(torch.int64))

    @property
    def calibration(self) -> Tensor:
        """(5,) the sums that the line of `calibrate` is fitted to, as `fit_sums` has them; a view of what is kept."""
        return self.calibration_bits.view(torch.float64)

    def configure_model(self) -> None:
        super().configure_model()
        if self.confidence_over == "answer":
            self._require_known_tokens()

    def confidence_measure(self, experience: Experience) -> ConfidenceMeasure:
        tokens = experience.rollout.mask
        if self.confidence_over == "answer":
            tokens = answer_mask(self.policy, experience.responses, tokens)
        return ConfidenceMeasure(_MEANS[self.confidence_mean], tokens)

    def before_updates(self, rewards: Tensor, confidence: Tensor) -> None:
        if self.normalise != "none":
            self._step = moments_over_ranks(self, self._compared(rewards, confidence))

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        compared = self._compared(rewards, confidence)
        return compared if self._step is None else _NORMALISED[self.normalise](compared, self._step)

    def after_updates(self, rewards: Tensor, confidence: Tensor) -> None:
        if self.calibrate:
            intercept, slope = (number.item() for number in read(*calibration_line(self.calibration)))
            self.log_dict({"train/calibration/intercept": intercept, "train/calibration/slope": slope})
            self.calibration.mul_(self.memory).add_(self.all_reduce(fit_sums(confidence, rewards)))

    def _compared(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        """(B,) r - c, before the step is looked at."""
        return cgpo_advantages(rewards, calibrated(confidence, self.calibration) if self.calibrate else confidence)

    def _require_known_tokens(self) -> None:
        """Say before training does that it is not known what each token of this policy says."""
        try:
            self.policy.pieces(self.policy.encode_responses(("<answer>",))[0][0].tolist())
        except ValueError as error:
            raise ValueError(f"confidence_over answer: {error}; take confidence_over response") from None


class BatchLOO(RolloutModule):
    """Leave-one-out over the batch: one response a prompt, A = r - mean of the rewards of all other responses of the step.

    | advantage | ratio | clip | reduction |
    |---|---|---|---|
    | reward minus the mean of the others | token | (0.2, 0.2) | mean over tokens, then over responses |

    CGPO without confidence, as a control: it has all else of it. The others are those on all ranks, to whatever prompts; a
    step of one response teaches nothing. REINFORCE++ (Hu 2025, arXiv:2501.03262) takes its baseline from the batch too.
    """

    _step: Moments

    def before_updates(self, rewards: Tensor, confidence: Tensor) -> None:
        self._step = moments_over_ranks(self, rewards)

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        return batch_leave_one_out_advantages(rewards, self._step)
