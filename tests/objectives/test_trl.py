"""Losses, gradients and advantages equal those of TRL's own trainers, on random tensors in float64.

Legend: B responses, T tokens.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from lightning_sal.objectives import group_advantages, leave_one_out_advantages, policy_loss

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")

B, T, GROUP = 12, 12, 4

# What is asked of us, and of TRL.
LOSSES = {
    "grpo": (dict(), dict(loss_type="grpo")),
    "grpo with kl": (dict(beta=0.04), dict(loss_type="grpo", beta=0.04, use_bias_correction_kl=False)),
    "grpo with unbiased kl": (
        dict(beta=0.04, unbiased_kl=True),
        dict(loss_type="grpo", beta=0.04, use_bias_correction_kl=True),
    ),
    "gspo with unbiased kl": (
        dict(ratio="sequence", beta=0.04, unbiased_kl=True),
        dict(loss_type="grpo", importance_sampling_level="sequence", beta=0.04, use_bias_correction_kl=True),
    ),
    "grpo with dual clip": (dict(dual_clip=3.0), dict(loss_type="grpo", delta=3.0)),  # alike where c > 1 + high
    "dr_grpo": (dict(reduction="constant", max_length=20), dict(loss_type="dr_grpo", max_completion_length=20)),
    "dapo": (dict(reduction="token_mean", clip=(0.2, 0.28)), dict(loss_type="dapo", epsilon_high=0.28)),
    "gspo": (
        dict(ratio="sequence", clip=(3e-4, 4e-4)),
        dict(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4),
    ),
    "cispo": (
        dict(reduction="token_mean", surrogate="weighted", clip=(1.0, 4.0)),
        dict(loss_type="cispo", epsilon_high=5.0),  # TRL's cap is on the ratio, ours on its distance from 1
    ),
}

ADVANTAGES = {
    "group": (lambda rewards: group_advantages(rewards, GROUP), "GRPO", dict(scale_rewards="group")),
    "none": (lambda rewards: group_advantages(rewards, GROUP, "none"), "GRPO", dict(scale_rewards="none")),
    "leave one out": (lambda rewards: leave_one_out_advantages(rewards, GROUP), "RLOO", dict()),
}


@pytest.fixture(scope="module")
def trainer():
    """Builds a trainer of TRL from its own config but without its constructor, which wants a model and reports home."""
    import trl

    def build(kind, **options):
        sizes = dict(num_generations=GROUP, per_device_train_batch_size=B, gradient_accumulation_steps=1)
        args = getattr(trl, f"{kind}Config")(use_cpu=True, bf16=False, **sizes, **dict(beta=0.0) | options)
        built = object.__new__(getattr(trl, f"{kind}Trainer"))
        vars(built).update(
            vars(args),
            args=args,
            epsilon_low=args.epsilon,
            epsilon_high=args.epsilon_high or args.epsilon,
            current_gradient_accumulation_steps=1,
            aux_loss_enabled=False,
            eos_token_ids=[1],
            environment_factories=None,
            environments=None,
            tools=None,
            _entropy_bonus_enabled=False,
            _tokenizer=SimpleNamespace(pad_token_id=0),
            model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
            accelerator=SimpleNamespace(
                num_processes=1,
                process_index=0,
                device=torch.device("cpu"),
                gather=lambda tensor: tensor,
                reduce=lambda tensor, reduction: tensor,
            ),
            reward_weights=torch.ones(1),
            reward_func_names=["reward"],
            _metrics={"train": defaultdict(list)},
            _logs=defaultdict(list, rewards=defaultdict(list)),
            _pending_extra_logs={},
            _pending_metrics={},
        )
        return built

    return build


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_equal_those_of_trl(name, seed, trainer):
    ours, theirs = LOSSES[name]
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(4, B, T, generator=generator, dtype=torch.float64)
    # A row drifts from 1e-4 to 3 nats a token, so that token and sequence ratios lie on both sides of every clip.
    drift = torch.logspace(-4, 0.5, B, dtype=torch.float64)[:, None] * normal[0]
    logp = -normal[1].abs()
    old, ref, advantages = logp - drift, logp + normal[2] / 2, normal[3, :, 0]
    mask = torch.arange(T) < torch.randperm(T + 1, generator=generator)[:B, None]
    assert drift[mask].min() < -2 < 2 < drift[mask].max()
    batch = dict(
        prompt_ids=torch.zeros(B, 1, dtype=torch.long),
        prompt_mask=torch.ones(B, 1, dtype=torch.long),
        completion_ids=torch.zeros(B, T, dtype=torch.long),
        completion_mask=mask.long(),
        advantages=advantages,
        old_per_token_logps=old,
        ref_per_token_logps=ref,
        num_items_in_batch=mask.sum(),
    )
    grpo = trainer("GRPO", **theirs)
    grpo._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros(B, T), None)
    logp.requires_grad_()
    expected = grpo._compute_loss(grpo.model, batch)
    (expected_gradient,) = torch.autograd.grad(expected, logp)
    loss = policy_loss(logp, old, advantages, mask, logp_ref=ref, **ours)
    (gradient,) = torch.autograd.grad(loss, logp)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_equal_those_of_trl(name, seed, trainer):
    ours, kind, options = ADVANTAGES[name]
    rewards = torch.rand(B, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rewards[:GROUP] = 0.1  # a group that tells nothing
    theirs = trainer(kind, **options)
    prompts, completions, texts, nothing = [[0]] * B, [[0]] * B, [""] * B, [None] * 4
    generated = (prompts, completions, texts) if kind == "RLOO" else (prompts, completions, None, texts, *nothing)
    theirs._generate = lambda _: generated
    theirs._calculate_rewards = lambda *_: rewards[:, None]
    theirs._get_per_token_logps_and_entropies = lambda *_, **__: (torch.zeros(B, 1), None, None)
    expected = theirs._generate_and_score_completions([{"prompt": ""}] * B)["advantages"]
    # TRL rounds the G / (G - 1) of its spread to float32.
    torch.testing.assert_close(ours(rewards), expected, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_without_truncated_responses_mask_count_loss_and_gradient_are_those_of_trl(loss_type, trainer):
    """They count where a loss is divided by responses, and do not where it is divided by tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = (torch.randperm(T, generator=generator) + 1)[:B]
    truncated = torch.arange(B) % 3 == 0
    # id 1 ends a response, id 2 is any other, id 0 pads
    ids = [[2] * (int(n) - 1) + [2 if cut else 1] for n, cut in zip(lengths, truncated, strict=True)]
    rewards = torch.rand(B, generator=generator, dtype=torch.float64)
    logp = -torch.rand(B, T, generator=generator, dtype=torch.float64)
    old = logp + torch.randn(B, T, generator=generator, dtype=torch.float64) / 4
    logp.requires_grad_()
    options = dict(mask_truncated_completions=True, max_completion_length=T, loss_type=loss_type)
    theirs = trainer("GRPO", **options)
    theirs._generate = lambda _: ([[0]] * B, ids, None, [""] * B, *[None] * 4)
    theirs._calculate_rewards = lambda *_: rewards[:, None]
    theirs._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros(B, T), None)
    batch = theirs._generate_and_score_completions([{"prompt": ""}] * B)
    mask = (torch.arange(T) < lengths[:, None]) & ~truncated[:, None]
    assert batch["completion_mask"].bool().equal(mask)
    assert int(batch["num_items_in_batch"]) == mask.sum()
    expected = theirs._compute_loss(theirs.model, batch | {"old_per_token_logps": old})
    (expected_gradient,) = torch.autograd.grad(expected, logp)
    reduction = {"grpo": "sequence_mean", "dapo": "token_mean", "dr_grpo": "constant"}[loss_type]
    advantages = group_advantages(rewards, GROUP)  # in whose mean and spread they are
    loss = policy_loss(logp, old, advantages, mask, reduction=reduction, max_length=T, total_sequences=B)
    (gradient,) = torch.autograd.grad(loss, logp)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-6)  # TRL keeps advantages of rewards in float32
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-12, rtol=1e-6)


def test_the_on_policy_gradient_of_rloo_is_that_of_trl_over_the_constant_length(trainer):
    """TRL's ratio is that of the whole response, a product over its tokens; off-policy the two differ."""
    generator = torch.Generator().manual_seed(0)
    logp = -torch.rand(B, T, generator=generator, dtype=torch.float64)
    mask = torch.arange(T) < (torch.randperm(T, generator=generator) + 1)[:B, None]
    advantages = leave_one_out_advantages(torch.rand(B, generator=generator, dtype=torch.float64), GROUP)
    rloo = trainer("RLOO")
    logp.requires_grad_()
    rloo._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros(B, T), None)
    batch = dict(
        prompt_ids=torch.zeros(B, 1, dtype=torch.long),
        prompt_mask=torch.ones(B, 1, dtype=torch.long),
        completion_ids=torch.zeros(B, T, dtype=torch.long),
        completion_mask=mask.long(),
        advantages=advantages,
        old_logps=(logp.detach() * mask).sum(1),
    )
    (expected,) = torch.autograd.grad(rloo._compute_loss(rloo.model, batch), logp)
    loss = policy_loss(logp, logp.detach(), advantages, mask, reduction="constant", max_length=20)
    (gradient,) = torch.autograd.grad(loss, logp)
    torch.testing.assert_close(20 * gradient, expected, atol=1e-12, rtol=1e-12)
