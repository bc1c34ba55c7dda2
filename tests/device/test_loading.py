"""Where the weights of a policy go while it is made."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lightning_sal.modules import SFT
from lightning_sal.policy import policy
from tests.device import pretend
from tests.device.parts import module, scenes, trainer


def test_weights_are_read_to_the_device_and_the_cpu_never_has_the_model(tmp_path: Path, monkeypatch) -> None:
    devices, load = [], policy.load_model

    def watched(*args, **options):
        model, *rest = load(*args, **options)
        devices.append({weight.device for weight in model.parameters()})
        return model, *rest

    monkeypatch.setattr(policy, "load_model", watched)
    trainer(tmp_path).fit(module(SFT), datamodule=scenes(streams=["sft"]))
    assert devices == [{pretend.device()}]
    # Processes of DDP, each with a device of its own, load within the same context of Lightning.
    assert DDPStrategy.tensor_init_context is SingleDeviceStrategy.tensor_init_context
