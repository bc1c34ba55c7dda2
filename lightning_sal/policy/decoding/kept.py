"""The decoder of a policy from rollout to rollout."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.decoding.decoder import Decoder
from lightning_sal.policy.decoding.graphs import Eager, Graphs, Stepper

CAPTURES = "cuda"  # Kind of device on which steps can be captured


class KeptDecoder:
    """Gives a decoder of the weights as they are now: a new one, or on a GPU the one that steps were captured of.

    Args:
        backbone: Whose it is.
        own: Whether weights may be laid side by side: see `Decoder`.
        graphs: Whether steps are captured where they can be.
    """

    def __init__(self, backbone: Backbone, *, own: bool, graphs: bool) -> None:
        self.backbone, self.own, self.graphs = backbone, own, graphs
        self.kept: tuple[Decoder, Stepper, list[int]] | None = None

    def get(self, suppressed: Tensor) -> tuple[Decoder, Stepper]:
        """The decoder, in the precision of now, and what does its steps.

        Args:
            suppressed: (V,) bool, True on ids that are never said.
        """
        device = suppressed.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.backbone.last_norm.dtype
        # What is made here outlives an inference mode, in which weights would be of no use for training afterwards.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            if not (self.graphs and device == CAPTURES):
                self.kept = None
                return Decoder(self.backbone, dtype, suppressed, own=self.own), Eager()
            if self.kept is not None and self.kept[0].dtype == dtype:
                decoder, stepper, places = self.kept
                decoder.refresh()
                if _places(decoder) == places:
                    return decoder, stepper
            self.kept = None
            decoder = Decoder(self.backbone, dtype, suppressed, own=self.own)
            places = _places(decoder)
            if not places:
                return decoder, Eager()
            self.kept = decoder, Graphs(), places
            return self.kept[:2]


def _places(decoder: Decoder) -> list[int]:
    """Where the weights are that a step reads; none where that can't be known."""
    return [buffer.data_ptr() for buffer in decoder.buffers or ()]
