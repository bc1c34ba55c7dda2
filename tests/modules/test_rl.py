"""RL steps of every algorithm, against an update written out by hand on one response at a time."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch

from lightning_sal.datamodules import ScenesDataModule
from lightning_sal.modules import CGPO, CISPO, DAPO, GRPO, GSPO, RLOO, DrGRPO, rollout
from lightning_sal.modules.accumulation import grouped_micro_batches
from lightning_sal.modules.rollout_log import RatioLog, ratio_values
from lightning_sal.objectives import cgpo_advantages, group_advantages, leave_one_out_advantages
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.rewards import Reward, RewardTerm, Scores
from lightning_sal.samplers import PolicySampler
from lightning_sal.segmenters import EVFSAM2
from tests.modules.parts import (
    POLICY,
    Letters,
    StripeSegmenter,
    assert_advantages_need_no_confidence_of_others,
    scenes,
    trained,
    trainer,
)

G, TOKENS, KL = 4, 8, 0.04
ALGORITHMS = [CGPO, GRPO, DrGRPO, DAPO, GSPO, CISPO, RLOO]


class Cut(PolicySampler):
    """Says that every second response was truncated, and the second response to a prompt is one token shorter."""

    def sample(self, *args, **options):
        rollout = super().sample(*args, **options)
        mask = rollout.mask.clone()
        mask[1::G, -1] = False
        truncated = torch.arange(len(mask)) % 2 == 0
        return replace(rollout, mask=mask, logp=torch.where(mask, rollout.logp, 0.0), truncated=truncated)


class Keep(L.Callback):
    """The gradients of each optimisation step before clipping, what was logged, and the record."""

    record: Any
    logged: Any
    start: Any

    def __init__(self):
        self.gradients = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.requires_grad})

    def on_train_end(self, trainer, pl_module):
        self.logged, self.record = dict(trainer.callback_metrics), pl_module.record


def made(algorithm, **options):
    torch.manual_seed(0)
    group = {} if algorithm is CGPO else {"responses_per_prompt": G}
    defaults = {
        "policy": POLICY,
        "segmenter": StripeSegmenter(),
        "reward": Reward([Letters()]),
        "max_new_tokens": TOKENS,
    }
    return algorithm(**{**defaults, "optimizer": partial(torch.optim.SGD, lr=0.1), **group, **options})


def step(module, folder, **options):
    """One step on three prompts with adapters that do something."""
    keep = Keep()
    module.configure_model()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    start = trained(module)
    run = trainer(folder, max_steps=1, callbacks=[keep], **options)
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=3))
    keep.start = start
    return keep


def by_hand(module, record, start, updates, advantages=None):
    """Gradients of each update by the formulas, one response at a time without padding, then plain SGD at rate 0.1.

    `advantages` makes them of rewards and the old log-probabilities of each response, where the class does not say all.
    """
    prompts = module.policy.encode(record.groups)
    lengths = record.rollout.mask.sum(1).tolist()
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(start[name])

    def scores():
        rows = range(len(lengths))
        tokens = [record.rollout.tokens[row : row + 1, : lengths[row]] for row in rows]
        return [
            module.policy.score(prompts.select([row]), ids, torch.ones_like(ids, dtype=torch.bool))[0]
            for row, ids in zip(rows, tokens, strict=True)
        ]

    rewards, cut = record.rewards.total, record.rollout.truncated.tolist()
    inside = [not (module.mask_truncated and each) for each in cut]
    counted = sum(length for length, counts in zip(lengths, inside, strict=True) if counts)
    if type(module) is DAPO:  # whose buffer is a fifth of eight tokens, one: the last token costs 1
        rewards = rewards - torch.tensor([float(length == TOKENS) for length in lengths])
    old = [logp.detach() for logp in scores()]
    with torch.no_grad(), module.policy.reference():
        reference = scores()
    confidence = torch.stack([logp.exp().mean() for logp in old])
    advantage = (
        advantages(rewards, old)
        if advantages
        else {
            CGPO: lambda: cgpo_advantages(rewards, confidence),
            DrGRPO: lambda: group_advantages(rewards, G, "none"),
            RLOO: lambda: leave_one_out_advantages(rewards, G),
        }.get(type(module), lambda: group_advantages(rewards, G))()
    )
    if type(module) is DAPO:
        assert (advantage.view(-1, G) != 0).any(1).all()  # the rewards of every group differ here
    gradients, (low, high) = [], module.clip
    for _ in range(updates):
        module.zero_grad()
        loss = 0.0
        for logp, logp_old, logp_ref, a, counts in zip(scores(), old, reference, advantage, inside, strict=True):
            if not counts:
                continue
            r = (logp - logp_old).exp()
            if type(module) is GSPO:
                r = (logp - logp_old).mean().exp().expand_as(logp)
            tokens = -torch.minimum(r * a, r.clamp(1 - low, 1 + high) * a)
            if type(module) is CISPO:
                tokens = -r.detach().clamp(max=1 + high) * a * logp
            if type(module) is GRPO:
                d = logp_ref - logp
                tokens = tokens + KL * (d.exp() - d - 1)
            if type(module) in (DAPO, CISPO):
                loss = loss + tokens.sum() / counted
            elif type(module) in (DrGRPO, RLOO):
                loss = loss + tokens.sum() / (len(lengths) * TOKENS)
            else:
                loss = loss + tokens.mean() / len(lengths)
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in parameters.items()})
        with torch.no_grad():
            for p in parameters.values():
                p -= 0.1 * p.grad
    return gradients


def close(found, expected, relative):
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=relative * scale, rtol=relative, msg=name)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_three_updates_on_a_rollout_are_those_of_the_formulas(algorithm, tmp_path):
    module = made(algorithm, updates_per_rollout=3, micro_batch_size=4)
    keep = step(module, tmp_path)
    expected = by_hand(module, keep.record, keep.start, updates=3)
    for found, wanted in zip(keep.gradients, expected, strict=True):
        close(found, wanted, 1e-4)
    assert keep.logged["train/ratio/max"] > 1
    assert keep.logged["train/ratio/min"] < 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gradient_does_not_depend_on_the_micro_batch(algorithm, tmp_path):
    """In float64, so that nothing but the order of sums is left; sizes that cut groups and that do not fit them."""
    (whole,), *cut = (
        step(made(algorithm, micro_batch_size=size), tmp_path, precision="64-true").gradients
        for size in (None, 1, 3, 8)
    )
    assert next(iter(whole.values())).dtype == torch.float64
    for (gradient,) in cut:
        close(gradient, whole, 1e-10)


@pytest.mark.parametrize("algorithm", [CGPO, GRPO])
def test_old_and_current_log_probabilities_agree_whatever_the_micro_batch(algorithm, tmp_path):
    module = made(algorithm, updates_per_rollout=2, micro_batch_size=3, optimizer=partial(torch.optim.SGD, lr=0.0))
    logged = step(module, tmp_path).logged
    assert logged["train/ratio/max"] == pytest.approx(1, abs=1e-6)
    assert logged["train/ratio/min"] == pytest.approx(1, abs=1e-6)
    assert logged["train/clip_ratio/low"] == logged["train/clip_ratio/high"] == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_truncated_responses_are_left_out_of_the_loss_alone(algorithm, tmp_path):
    """Of the counts they leave the tokens, not the responses; advantages and what is logged have them as ever."""
    module = made(algorithm, updates_per_rollout=2, micro_batch_size=3, mask_truncated=True, sampler=Cut())
    keep = step(module, tmp_path)
    record = keep.record
    cut = record.rollout.truncated.float().mean().item()
    assert 0 < cut < 1
    expected = by_hand(module, record, keep.start, updates=2)
    for found, wanted in zip(keep.gradients, expected, strict=True):
        close(found, wanted, 1e-4)
    assert keep.logged["train/response/truncated"] == pytest.approx(cut)
    assert keep.logged["train/response/length"] == pytest.approx(record.rollout.mask.sum(1).float().mean().item())
    assert record.scored.all()
    assert (record.entropy > 0).all()


def test_a_step_of_truncated_responses_alone_changes_nothing(tmp_path):
    class AllCut(Cut):
        def sample(self, *args, **options):
            rollout = super().sample(*args, **options)
            return replace(rollout, truncated=torch.ones_like(rollout.truncated))

    for algorithm in (CGPO, GRPO, DAPO):
        keep = step(made(algorithm, mask_truncated=True, entropy_coef=0.1, sampler=AllCut()), tmp_path)
        assert all((gradient == 0).all() for gradient in keep.gradients[0].values())
        assert keep.logged["train/response/truncated"] == 1


@pytest.mark.parametrize("algorithm", [CGPO, GRPO])
def test_dual_clip_and_unbiased_kl_reach_the_loss(algorithm, tmp_path, monkeypatch):
    """Both are in the second update's gradient; a bound that no ratio reaches changes nothing."""
    given = []
    loss = rollout.policy_loss
    monkeypatch.setattr(rollout, "policy_loss", lambda *a, **k: given.append(k) or loss(*a, **k))
    common = {"beta": 0.5, "updates_per_rollout": 2}
    plain, wide, corrected = (
        step(made(algorithm, **common, **options), tmp_path)
        for options in ({}, {"dual_clip": 1e6}, {"dual_clip": 1e6, "unbiased_kl": True})
    )
    for one, other in zip(plain.gradients, wide.gradients, strict=True):
        close(one, other, 1e-6)
    with pytest.raises(AssertionError):
        close(corrected.gradients[0], plain.gradients[0], 1e-3)
    assert [(each["dual_clip"], each["unbiased_kl"]) for each in given[::2]] == [
        (None, False), (1e6, False), (1e6, True),
    ]  # fmt: skip


def test_ratios_of_a_sampler_that_is_far_off_are_logged_as_finite_numbers():
    logp = torch.full((1, 2), -1.0)
    ratios = RatioLog((0.2, 0.2), "token")
    ratios.add(logp, logp, logp + torch.tensor([[-1e4, 1e4]]), torch.ones(1), torch.ones(1, 2, dtype=torch.bool))
    logged = ratio_values(*(sums.tolist() for sums in ratios.sums()))
    assert logged["train/sampler_ratio/max"] == pytest.approx(math.exp(20))
    assert logged["train/sampler_ratio/min"] == pytest.approx(math.exp(-20))
    assert logged["train/ratio/max"] == 1


def test_kl_is_the_mean_over_tokens_that_were_scored(tmp_path):
    """The groups that dynamic sampling dropped have no log-probabilities, and no share in it."""
    module = made(
        DAPO, beta=KL, overlong_buffer=0, reward=Reward([OnlyOdd()]), optimizer=partial(torch.optim.SGD, lr=0.0)
    )
    keep = step(module, tmp_path)
    record, rows = keep.record, list(range(G, 2 * G))
    assert record.scored.nonzero().flatten().tolist() == rows
    prompts = module.policy.encode(record.groups[G : G + 1])
    tokens, mask = record.rollout.tokens[rows], record.rollout.mask[rows]
    with torch.no_grad():
        logp = module.policy.score(prompts, tokens, mask)
        with module.policy.reference():
            d = module.policy.score(prompts, tokens, mask) - logp
    expected = (d.exp() - d - 1)[mask].mean()
    assert keep.logged["train/kl"] == pytest.approx(float(expected), rel=1e-4)


def test_gspo_on_policy_is_grpo_without_kl(tmp_path):
    one, two = step(made(GSPO), tmp_path).gradients + step(made(GRPO, beta=0.0), tmp_path).gradients
    close(one, two, 1e-5)


def test_kl_is_zero_at_the_start_and_logged(tmp_path):
    class AtStart(GRPO):
        def configure_model(self):
            super().configure_model()

    module = made(AtStart)
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=3))
    assert run.callback_metrics["train/kl"] == pytest.approx(0, abs=1e-10)
    assert step(made(GRPO), tmp_path).logged["train/kl"] > 1e-4


def test_gradient_clipping_holds_in_every_update(tmp_path):
    module = made(DrGRPO, updates_per_rollout=3, optimizer=partial(torch.optim.SGD, lr=1.0))
    keep = step(module, tmp_path, gradient_clip_val=1e-3)
    moved = torch.stack([(weight - keep.start[name]).norm() for name, weight in trained(module).items()]).norm()
    assert len(keep.gradients) == 3
    assert 1e-3 < moved <= 3e-3 * (1 + 1e-4)


class OnlyOdd(RewardTerm):
    """Groups of every second prompt get equal rewards."""

    name = "odd"

    def forward(self, responses):
        keys = list(dict.fromkeys(item.group.key for item in responses))
        values = [0.5 if keys.index(item.group.key) % 2 == 0 else len(set(item.text)) / 30 for item in responses]
        return Scores(torch.tensor(values), (None,) * len(responses))


@pytest.mark.parametrize(("beta", "scored"), [(0.0, G), (0.04, 3 * G)])
def test_no_pass_is_spent_on_groups_with_equal_rewards_though_they_count(beta, scored, tmp_path, monkeypatch):
    """Of three prompts the second alone has rewards that differ; the mean is still over all three."""
    module, rows = made(GRPO, beta=beta, reward=Reward([OnlyOdd()]), updates_per_rollout=2), []
    module.configure_model()
    score = module.policy.score_tokens
    monkeypatch.setattr(
        module.policy,
        "score_tokens",
        lambda prompts, ids, *a, **k: rows.append(len(ids)) or score(prompts, ids, *a, **k),
    )
    keep = step(module, tmp_path)
    assert rows == ([scored] * 2 if not beta else [scored] * 3)  # with KL, the reference too
    monkeypatch.undo()
    if not beta:
        monkeypatch.setattr("tests.modules.test_rl.KL", 0.0)
    for found, wanted in zip(keep.gradients, by_hand(module, keep.record, keep.start, updates=2), strict=True):
        close(found, wanted, 1e-4)


def test_entropy_is_logged_as_the_mean_over_tokens_of_the_responses_that_were_scored(tmp_path):
    """Of the task whose groups all have equal rewards nothing is scored, so nothing is logged."""
    module = made(GRPO, beta=0.0, reward=Reward([OnlyOdd()]), temperature=1.5, micro_batch_size=3)
    keep = step(module, tmp_path)
    record = keep.record
    assert record.scored.tolist() == [False] * G + [True] * G + [False] * G
    rows = list(range(G, 2 * G))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in keep.start:
                parameter.copy_(keep.start[name])
        prompts = module.policy.encode([record.groups[G]])
        tokens, mask = record.rollout.tokens[rows], record.rollout.mask[rows]
        scores = module.policy.score_tokens(prompts, tokens, mask, 1.5, entropy="value")
    expected = float(scores.entropy.sum() / mask.sum())
    assert keep.logged["train/entropy"] == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(record.entropy[rows], scores.entropy.sum(1) / mask.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(record.embeddings[rows], scores.last, rtol=1e-4, atol=1e-4)
    of_tasks = {group.task for group in record.groups}
    assert len(of_tasks) == 3
    logged = {task for task in of_tasks if f"train/{task}/entropy" in keep.logged}
    assert logged == {record.groups[G].task}


@pytest.mark.parametrize("algorithm", [CGPO, GRPO, DrGRPO])
def test_an_entropy_bonus_has_the_gradient_of_the_entropy_of_each_token(algorithm, tmp_path):
    """The loss is lowered by it, reduced as the rest of the loss is."""
    coef, options = 0.1, {"beta": 0.0} if algorithm is GRPO else {}
    plain, bonus = (
        step(made(algorithm, micro_batch_size=3, entropy_coef=each, **options), tmp_path, precision="64-true")
        for each in (0.0, coef)
    )
    module = made(algorithm, **options).double()
    module.configure_model()
    module.double()
    for name, parameter in module.named_parameters():
        if name in bonus.start:
            parameter.data.copy_(bonus.start[name])
    record, total = bonus.record, 0.0
    prompts, lengths = module.policy.encode(record.groups), record.rollout.mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        ids = record.rollout.tokens[row : row + 1, :length]
        mask = torch.ones_like(ids, dtype=torch.bool)
        entropy = module.policy.score_tokens(prompts.select([row]), ids, mask, entropy="gradient").entropy
        total = total + entropy.sum() / (TOKENS if algorithm is DrGRPO else length) / len(lengths)
    total.backward()
    (without,), (found,) = plain.gradients, bonus.gradients
    wanted = {name: p.grad.mul(-coef) for name, p in module.named_parameters() if name in bonus.start}
    close({name: found[name] - without[name] for name in wanted}, wanted, 1e-4)


def dapo_step(tmp_path, batch_size, **options):
    module, keep = made(DAPO, reward=Reward([OnlyOdd()]), overlong_buffer=0, **options), Keep()
    run = trainer(tmp_path, max_steps=1, callbacks=[keep])
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=batch_size))
    return module, keep


def test_dynamic_sampling_goes_on_until_enough_groups_have_different_rewards(tmp_path):
    """Each round of two prompts has one group that teaches: the second round brings the second, the third is not sampled."""
    _, keep = dapo_step(tmp_path, 6, prompts_per_step=2)
    assert keep.logged["train/dynamic_sampling/rounds"] == 2
    assert keep.logged["train/dynamic_sampling/dropped"] == 2
    assert keep.logged["train/dynamic_sampling/gave_up"] == 0
    assert len(keep.record.groups) == 4 * G
    assert len({group.key for group in keep.record.groups}) == 4
    kept = keep.record.advantages.view(-1, G).ne(0).any(1)
    assert kept.tolist() == [False, True, False, True]


def test_dynamic_sampling_gives_up_at_the_end_of_the_batch_and_says_so(tmp_path):
    _, keep = dapo_step(tmp_path, 2, prompts_per_step=2)
    assert keep.logged["train/dynamic_sampling/gave_up"] == 1
    rows = list(range(G, 2 * G))  # of the second prompt, which teaches
    lengths = keep.record.rollout.mask[rows].sum(1)
    advantages = group_advantages(keep.record.rewards.total[rows], G)
    # On-policy each token's loss is -A, and the mean goes over the tokens of the kept responses alone.
    expected = -(advantages * lengths).sum() / lengths.sum()
    assert float(keep.logged["train/loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_step_in_which_nothing_teaches_changes_nothing(tmp_path):
    class Same(RewardTerm):
        name = "same"

        def forward(self, responses):
            return Scores(torch.full((len(responses),), 0.1 + 0.2), (None,) * len(responses))

    keep = step(made(DAPO, reward=Reward([Same()]), overlong_buffer=0), tmp_path)
    assert all((gradient == 0).all() for gradient in keep.gradients[0].values())
    assert keep.logged["train/dynamic_sampling/gave_up"] == 1


def test_dapo_is_by_default_what_the_paper_has():
    """Clip-higher, a penalty over a fifth of the tokens (4,096 of 20,480), the mean over all tokens, no KL."""
    module = made(DAPO, max_new_tokens=20480)
    assert (module.clip, module.overlong_buffer, module.reduction, module.beta) == ((0.2, 0.28), 4096, "token_mean", 0)
    assert made(DAPO, max_new_tokens=3).overlong_buffer == 1


def test_long_responses_are_punished_unless_told_not_to(tmp_path):
    plain, shaped = (step(made(DAPO, overlong_buffer=buffer), tmp_path).record for buffer in (0, TOKENS))
    assert torch.equal(plain.rewards.total, shaped.rewards.total)
    lengths = plain.rollout.mask.sum(1)
    expected = group_advantages(plain.rewards.total - lengths / TOKENS, G)
    torch.testing.assert_close(shaped.advantages, expected)


def test_micro_batches_hold_every_response_once_and_never_too_many():
    for responses in (1, 3, 8):
        for size in (None, 1, 2, 5, 8, 20):
            parts = grouped_micro_batches([2, 0, 1], responses, size)
            rows = [row for _, part in parts for row in part]
            assert sorted(rows) == list(range(3 * responses))
            assert all(len(part) <= (size or 24) and len(part) % len(which) == 0 for which, part in parts)
            assert all({row // responses for row in part} == set(which) for which, part in parts)


class NamesBoxes(ScenesDataModule):
    """Says that it has samples of a task that asks a segmenter by boxes."""

    @property
    def known_tasks(self):
        return ["perception"]


def test_a_segmenter_that_fits_is_asked_for_only_where_there_will_be_masks(tmp_path):
    """The reward looks at texts alone: SAM2 is needed where there is validation, and not without."""
    words = EVFSAM2.__new__(EVFSAM2)  # never asked
    torch.nn.Module.__init__(words)
    data = {"streams": ["rl"], "batch_size": 2, "steps_per_epoch": 1, "val_size": 1}
    run = trainer(tmp_path, max_steps=1)
    run.fit(made(CGPO, segmenter=words), datamodule=NamesBoxes(**data))
    assert run.global_step == 1
    for options in ({"limit_val_batches": 1}, {}):
        reward = Reward([Letters()]) if options else Reward()
        with pytest.raises(ValueError, match="perception asks by VisualPrompt and the segmenter EVFSAM2 takes str"):
            trainer(tmp_path, max_steps=1, **options).fit(
                made(CGPO, segmenter=words, reward=reward), datamodule=NamesBoxes(**data)
            )


@pytest.mark.parametrize(
    ("algorithm", "options", "line"),
    [
        (GRPO, dict(responses_per_prompt=1), "at least 2"),
        (GRPO, dict(policy=PolicyConfig("tiny-scratch")), "without adapters"),
        (CGPO, dict(updates_per_rollout=0), "at least 1"),
        (CGPO, dict(entropy_coef=-1e-3), "at least 0"),
        (CGPO, dict(dual_clip=1.0), "above 1"),
        (CISPO, dict(dual_clip=3.0), "weighted has none"),
        (DrGRPO, dict(unbiased_kl=True), "set beta"),
        (CGPO, dict(policy=PolicyConfig("tiny-scratch", lora=LoRA(), train_vision=True)), "vision tower frozen"),
        (DAPO, dict(overlong_buffer=TOKENS + 1), "buffer must lie"),
        (DAPO, dict(overlong_buffer=-1), "buffer must lie"),
    ],
)
def test_what_cannot_work_is_refused_at_once(algorithm, options, line):
    with pytest.raises(ValueError, match=line):
        made(algorithm, **options)


@pytest.mark.parametrize(
    ("method", "options", "knob"),
    [
        ("sample", {}, "halve data.batch_size"),
        ("score_tokens", {}, "set model.micro_batch_size"),
        ("score_tokens", {"micro_batch_size": 8}, "model.micro_batch_size 4"),
        ("score_tokens", {"micro_batch_size": 1}, "gradient_checkpointing true"),
    ],
)
def test_running_out_of_memory_says_which_knob_to_turn(method, options, knob, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    module = made(GRPO, **options)
    module.configure_model()
    monkeypatch.setattr(module.policy, method, full)
    with pytest.raises(MemoryError, match=knob):
        trainer(tmp_path, max_steps=1).fit(module, datamodule=scenes(streams=["rl"], batch_size=3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_advantages_do_not_depend_on_micro_batches(algorithm):
    assert_advantages_need_no_confidence_of_others(made(algorithm))
