"""Explanations by gradients of a label's logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.method import Method
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.policy.attention import View


@dataclass(frozen=True)
class GradientTimesInput(Method):
    """Gradient x input: m(p) = sum over features c of x_pc dz / dx_pc, with z the sum of the logits of the label's tokens.

    x are the features that the language model is given of the images; those of earlier vision blocks, which Qwen3-VL gives
    to its first layers, count too. Shrikumar et al. 2017 (arXiv:1605.01713).
    """

    def maps(self, case: Case) -> LabelMaps:
        return self._maps(case)

    @torch.enable_grad()
    def _maps(self, case: Case, view: Callable[[View], View] | None = None) -> LabelMaps:
        prompts, features = case.with_features()
        hidden = case.read(prompts, view)
        slopes = _slopes(case, hidden, features)
        return tuple(case.on_images((slope * features).sum(1)) for slope in slopes)


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM: m(p) = ReLU(sum over c of g_c h_pc), g_c the mean over visual tokens of dz / dh_pc.

    h are the hidden states of the visual tokens before the middle layer of the decoder, number (layers // 2) from 0: before
    the last layer they have much of the text in them already, and behind it no gradient. z is the sum of the logits of the
    label's tokens. Selvaraju et al. 2017 (arXiv:1610.02391).
    """

    @torch.enable_grad()
    def maps(self, case: Case) -> LabelMaps:
        kept: list[Tensor] = []

        def cut(states: Tensor) -> Tensor:
            kept.append(states.detach().requires_grad_())
            return kept[0]

        backbone = case.policy.backbone
        with backbone.before_layer(len(backbone.out_projections) // 2, cut):
            hidden = case.read()
        (states,), visual = kept, case.visual
        at = states[0, visual]
        weights = [slope[0, visual].mean(0) for slope in _slopes(case, hidden, states)]
        return tuple(case.on_images((at @ weight).clamp(min=0)) for weight in weights)


def _slopes(case: Case, hidden: Tensor, of: Tensor) -> list[Tensor]:
    """For each label the gradient of the sum of its logits."""
    logits = [case.logit(hidden, span) for span in case.labels]
    return [torch.autograd.grad(logit, of, retain_graph=True)[0] for logit in logits]
