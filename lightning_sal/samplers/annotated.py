"""The annotated answers in place of the policy's: what evaluation gives a policy that makes no mistake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lightning_sal.policy.policy import Policy
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samplers.base import Generators
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.tasks import task_of


class Annotated:
    """Answers each sample by its true response, `Task.true_response`, written in the units of the policy's frame.

    All that comes behind is the same as for a policy's own responses: they are read, mapped to the image, segmented and
    measured. So as `evaluation_sampler` it gives the upper bound that the segmenter, rounding, and the metrics leave: of
    perception tasks the score of ground-truth boxes and points. Confidence is 1, as nothing was sampled.
    """

    exact = False

    def sample(
        self,
        policy: Policy,
        groups: Sequence[ImageGroup],
        prompts: Prompts,
        *,
        max_new_tokens: int,
        responses: int,
        temperature: float,
        generator: Generators,
    ) -> Rollout:
        """See `Sampler.sample`; responses are whole, however long, and all G alike.

        Raises:
            ValueError: If a sample has no annotated answer; the line names it.
        """
        true = [replace(group, response=task_of(group, policy.config.look).true_response(group)) for group in groups]
        for group in true:
            if group.response is None:
                raise ValueError(
                    f"{group.key}: Annotated answers by the true response and this sample has none; give one"
                )
        texts = [text for text in policy.annotated(true) for _ in range(responses)]
        tokens, mask = policy.encode_responses(texts)
        logp = torch.zeros(tokens.shape, device=tokens.device)
        return policy.rollout(tuple(texts), tokens, mask, logp, torch.zeros_like(mask[:, 0]))
