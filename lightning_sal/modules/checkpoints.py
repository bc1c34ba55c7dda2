"""Training a part of a module's weights: its optimizer, and checkpoints that hold that part alone."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_sal.modules import agreement
from lightning_sal.modules.exact_resume import ExactResume
from lightning_sal.modules.stopping import SaveAtEnd, StopAtSigterm


class FineTuningModule(L.LightningModule):
    """A module of whose weights those are trained that require a gradient.

    Its checkpoints hold, beside what Lightning writes, `state_dict` with the trained weights alone, their names as
    `trained`, and `buffers`.

    Args:
        optimizer: Called with the trainable parameters.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step; null keeps the rate constant.
    """

    weights_of: ClassVar[str]  # Whose weights they are, for messages

    def __init__(self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained, and `on_load_checkpoint` checks that
        self.make_optimizer, self.make_lr_scheduler = optimizer, lr_scheduler

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def saved_buffers(self) -> dict[str, Tensor]:
        """The buffers that a checkpoint holds, by name: none, unless a subclass keeps something from step to step."""
        return {}

    def configure_callbacks(self) -> list[L.Callback]:
        return [ExactResume(), StopAtSigterm(), SaveAtEnd()]

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(list(self.trainable().values()))
        if self.make_lr_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.make_lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = self.trainable()
        checkpoint["buffers"] = self.saved_buffers()
        checkpoint["trained"] = list(trained)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = self.trainable()
        given: Any = checkpoint.get("state_dict")
        if not given:  # FSDP2 and DeepSpeed load before they ask
            given = {name: own.get(name) for name in checkpoint["trained"]}
        elif self.trainer.training:
            agreement.refuse_weights_alone(checkpoint.get("optimizer_states"))
        agreement.refuse_other_weights(given, own, self.weights_of)
        self._take_up(checkpoint.get("buffers", {}))

    def _take_up(self, saved: dict[str, Tensor]) -> None:
        """Put the buffers of a checkpoint in place; those that it lacks start anew, which a line says."""
        own = self.saved_buffers()
        agreement.refuse_other_buffers(saved, own)
        for name in own.keys() & saved.keys():
            own[name].copy_(saved[name])
        if lacking := sorted(own.keys() - saved.keys()):  # it is of another algorithm or reward
            more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
            rank_zero_info(f"the checkpoint lacks {lacking[0]}{more}, which steps remember: what it lacks starts anew")
