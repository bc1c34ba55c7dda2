"""Training, evaluation and export of each family on the general path, on three tasks."""

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.modules import GRPO
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.export import export
from lightning_sal.policy.make import make_policy
from lightning_sal.rewards import Reward
from tests.modules.parts import ADAMW, SGD, Letters, StripeSegmenter, cgpo, scenes, sft, trained, trainer


def grpo(**options):
    torch.manual_seed(0)  # peft draws the adapters
    few = {"responses_per_prompt": 2, "max_new_tokens": 8}
    return GRPO(segmenter=StripeSegmenter(), reward=Reward([Letters()]), **few, **options)


@pytest.fixture
def adapted(family_folder):
    return PolicyConfig(str(family_folder), lora=LoRA(rank=4))


def data(stream):
    """All three tasks in the first batch of a stream and in what is tested, with two images to one of several."""
    seed = {"rl": 0, "sft": 2}[stream]
    return scenes(streams=[stream], seed=seed, group_size=2, batch_size=3, val_size=0, test_size=9)


@pytest.mark.parametrize(("make", "stream"), [(sft, "sft"), (grpo, "rl")])
def test_the_gradient_does_not_depend_on_the_micro_batch(make, stream, adapted, tmp_path):
    """With SGD at rate 1 the change of a weight is its gradient, and half of the adapters begin at 0."""
    weights = []
    for size in (None, 2):
        module = make(policy=adapted, optimizer=SGD, micro_batch_size=size)
        trainer(tmp_path, max_steps=1).fit(module, datamodule=data(stream))
        weights.append(trained(module))
    whole, cut = weights
    scale = float(max(weight.abs().max() for name, weight in whole.items() if "lora_B" in name))
    assert scale > 0
    for name, weight in cut.items():
        torch.testing.assert_close(weight, whole[name], atol=5e-5 * scale, rtol=1e-5)


def test_a_run_from_training_to_a_folder(adapted, tmp_path):
    module = cgpo(policy=adapted, optimizer=lambda p: ADAMW(p, lr=0.1))
    run = trainer(tmp_path, max_steps=2, limit_test_batches=3)
    run.fit(module, datamodule=data("rl"))
    assert module.record.rewards.total.isfinite().all()
    metrics = run.test(module, datamodule=data("rl"), verbose=False)[0]
    assert {"test/sod/s_measure", "test/sis/iasm", "test/cosod/s_measure"} <= set(metrics)
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert export(tmp_path / "last.ckpt", tmp_path / "whole", dtype="float32") == adapted.model

    groups = [SceneGroups(0, {"sod": 1, "cosod": 1}, group_size=2)[index] for index in range(2)]
    policies = [module.policy, make_policy(PolicyConfig(str(tmp_path / "whole")))]
    before = make_policy(PolicyConfig(adapted.model))
    with torch.no_grad():
        trained_, exported, untrained = (
            policy.eval().score(policy.encode(groups), *policy.encode_responses([group.response for group in groups]))
            for policy in (*policies, before)
        )
    torch.testing.assert_close(exported, trained_, atol=1e-4, rtol=1e-5)
    assert (untrained - trained_).abs().max() > 0.1


def test_all_weights_can_be_trained(family_folder, tmp_path):
    """Without adapters, the vision tower too; the checkpoint becomes a folder with the weights that training ended with."""
    policy = PolicyConfig(str(family_folder), train_vision=True)
    module = sft(policy=policy, optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, datamodule=data("sft"))
    run.save_checkpoint(tmp_path / "last.ckpt")
    export(tmp_path / "last.ckpt", tmp_path / "whole", dtype="float32")
    ended, exported, began = (
        dict(each.model.named_parameters())
        for each in (module.policy, *(make_policy(PolicyConfig(str(f))) for f in (tmp_path / "whole", family_folder)))
    )
    assert all(torch.equal(exported[name], weight) for name, weight in ended.items())
    sees = {id(p) for p in module.policy.model.get_encoder(modality="image").parameters()}
    moved = [name for name, weight in ended.items() if not torch.equal(weight, began[name])]
    assert any(id(ended[name]) in sees for name in moved)
    assert any(id(ended[name]) not in sees for name in moved)
