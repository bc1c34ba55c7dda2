"""Figures of a training: whatever is drawn is free again, also where Python collects no garbage by itself."""

import gc
from types import SimpleNamespace

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from lightning_sal.callbacks import Reliability, ResponseTypes


def record():
    rewards, confidence = torch.linspace(0, 1, 6), torch.linspace(1, 0, 6)
    return SimpleNamespace(
        groups=[SimpleNamespace(task="sod", key=str(n)) for n in range(6)],
        rewards=SimpleNamespace(total=rewards),
        confidence=confidence,
        advantages=rewards - confidence,
    )


def figures():
    return sum(isinstance(held, Figure) for held in gc.get_objects())


def test_no_figure_stays_in_memory(tmp_path):
    trainer = SimpleNamespace(loggers=[TensorBoardLogger(tmp_path)], global_step=0, is_global_zero=True)
    module = SimpleNamespace(record=record(), device=torch.device("cpu"))
    callbacks = [ResponseTypes(every_n_steps=1), Reliability(every_n_steps=1)]
    for callback in callbacks:
        callback.on_train_start(trainer, module)
    before = figures()
    drawn: list[str] = []
    board = trainer.loggers[0].experiment
    add = board.add_figure
    board.add_figure = lambda name, *parts: (drawn.append(name), add(name, *parts))
    gc.disable()
    try:
        for trainer.global_step in (1, 2, 3):
            for callback in callbacks:
                callback.on_train_batch_end(trainer, module)
        assert drawn == ["rollouts/response_types", "rollouts/reliability"] * 3
        assert figures() == before
        assert not gc.get_freeze_count()
    finally:
        gc.enable()
