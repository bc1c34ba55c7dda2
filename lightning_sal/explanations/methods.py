"""The methods of explanation that there are."""

from __future__ import annotations

from lightning_sal.explanations.activations import CAM, TAM
from lightning_sal.explanations.attributions import Attribution, Random, ReasoningAlone
from lightning_sal.explanations.gradients import GradCAM, GradientTimesInput
from lightning_sal.explanations.method import Method
from lightning_sal.explanations.relevance import AttnLRP
from lightning_sal.explanations.rollout import AttentionRollout

_ALL: tuple[Method, ...] = (
    Attribution("attribution"),
    Attribution("attribution-emit", convention="emit"),
    ReasoningAlone("attribution-reasoning"),
    Attribution("attribution-answer", direct=True),
    Attribution("attribution-attention", attention_only=True),
    Attribution("attention", direct=True, attention_only=True),
    AttentionRollout("rollout"),
    CAM("cam"),
    GradCAM("grad-cam"),
    GradientTimesInput("gradient-x-input"),
    TAM("tam"),
    AttnLRP("attn-lrp"),
    Random("random"),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Name -> method."""
