"""Policy losses against golden values, hand arithmetic and identities.

The golden values are what TRL 1.16.0's GRPOTrainer computes in float64 for the tensors below.
"""

import pytest
import torch

from lightning_sal.objectives import (
    cgpo_advantages,
    clip_fractions,
    k3,
    log_ratio,
    policy_loss,
    sft_loss,
    token_confidence,
)
from lightning_sal.objectives.policy import MAX_LOG_RATIO

LOGP = [
    [-0.5, -1, -0.2, -2, -0.7],
    [-1.5, -0.3, -0.9, -0.1, -0.4],
    [-0.8, -0.6, -1.2, -0.3, -2.2],
    [-0.05, -3, -0.45, -1.1, -0.9],
]
OLD = [
    [-0.6, -0.7, -0.25, -1.6, -0.7],
    [-1.2, -0.35, -0.9, -0.4, -0.4],
    [-0.9, -0.9, -1, -0.35, -2.2],
    [-0.05, -2.5, -0.75, -1.1, -0.9],
]
REF = [
    [-0.55, -0.9, -0.3, -1.8, -0.7],
    [-1.4, -0.5, -0.8, -0.2, -0.4],
    [-0.7, -0.8, -1.1, -0.4, -2.2],
    [-0.15, -2.8, -0.5, -1, -0.9],
]
LENGTHS = torch.tensor([4, 2, 5, 3])
GROUP = [0.7069734729900489, -0.7069734729900489, -0.7061081934029355, 0.706108193402934]
CENTRED = [0.375, -0.375, -0.05, 0.05]

CASES = {
    "grpo": (dict(), GROUP, 0.0288229692, 0.5330735959),
    "grpo with kl": (dict(beta=0.04), GROUP, 0.0291834642, 0.5356779471),
    "grpo with dual clip": (dict(dual_clip=1.3), GROUP, 0.0270626835, 0.4854162777),  # TRL's delta
    "dapo": (dict(reduction="token_mean", clip=(0.2, 0.28)), GROUP, 0.0363186008, 0.5828455919),
    "dr_grpo": (dict(reduction="constant", max_length=8), CENTRED, -0.0161778406, 0.0649577306),
    "gspo, wide clip": (dict(ratio="sequence"), GROUP, 0.0223730553, 0.6607334620),
    "cispo": (dict(reduction="token_mean", surrogate="weighted", clip=(1, 4)), GROUP, -0.0653379671, 0.6883373915),
    "gspo": (dict(ratio="sequence", clip=(3e-4, 4e-4)), GROUP, 0.0430879256, 0.5047579870),
}


def tensors():
    logp, old, ref = (torch.tensor(rows, dtype=torch.float64) for rows in (LOGP, OLD, REF))
    mask = torch.arange(5) < LENGTHS[:, None]
    return logp.requires_grad_(), old, ref, mask


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_the_golden_values(name):
    options, advantages, loss_value, gradient_sum = CASES[name]
    logp, old, ref, mask = tensors()
    loss = policy_loss(logp, old, torch.tensor(advantages, dtype=torch.float64), mask, logp_ref=ref, **options)
    loss.backward()
    assert loss.item() == pytest.approx(loss_value, abs=1e-9)
    assert logp.grad.abs().sum().item() == pytest.approx(gradient_sum, abs=1e-9)


def test_first_row_gradients_equal_the_golden_values():
    advantages = torch.tensor(GROUP, dtype=torch.float64)
    logp, old, _, mask = tensors()
    policy_loss(logp, old, advantages, mask).backward()
    expected = torch.tensor([-0.04883291, -0.03273368, -0.0464513, -0.02961866, 0], dtype=torch.float64)
    torch.testing.assert_close(logp.grad[0], expected, atol=1e-8, rtol=0)


def test_by_hand():
    """Ratios 1.5 and 0.5, clip 0.2, A = 2: -(1.2 * 2) and -(0.5 * 2), mean -1.7; A = -2: 1.5 * 2 and 0.8 * 2, mean 2.3."""
    old = torch.zeros(2, 3)
    logp = torch.tensor([[1.5, 0.5, 9.0], [1.5, 0.5, 9.0]]).log()
    mask = torch.tensor([[True, True, False]] * 2)
    advantages = torch.tensor([2.0, -2.0])
    per_row = (
        policy_loss(logp[:1], old[:1], advantages[:1], mask[:1]),
        policy_loss(logp[1:], old[1:], advantages[1:], mask[1:]),
    )
    assert per_row[0].item() == pytest.approx(-1.7)
    assert per_row[1].item() == pytest.approx(2.3)
    low, high = clip_fractions(logp, old, advantages, mask, clip=(0.2, 0.2))
    assert (low.item(), high.item()) == (0.25, 0.25)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_on_policy_gradient_is_reinforce(ratio):
    logp, _, _, mask = tensors()
    advantages = torch.tensor([0.3, -0.2, 0.9, -0.7], dtype=torch.float64)
    policy_loss(logp, logp.detach(), advantages, mask, ratio=ratio).backward()
    expected = -advantages[:, None] * mask / LENGTHS[:, None] / 4
    torch.testing.assert_close(logp.grad, expected)


def test_sequence_ratio_is_token_ratio_at_one_token():
    logp, old, _, _ = tensors()
    mask = (torch.arange(5) < 1).expand(4, 5)
    advantages = torch.tensor(GROUP, dtype=torch.float64)
    one = policy_loss(logp, old, advantages, mask, ratio="token")
    other = policy_loss(logp, old, advantages, mask, ratio="sequence")
    assert one.item() == pytest.approx(other.item(), abs=1e-15)


def test_constant_is_proportional_to_token_mean_at_equal_lengths():
    logp, old, _, _ = tensors()
    mask = torch.ones(4, 5, dtype=torch.bool)
    advantages = torch.tensor(GROUP, dtype=torch.float64)
    constant = policy_loss(logp, old, advantages, mask, reduction="constant", max_length=8)
    token_mean = policy_loss(logp, old, advantages, mask, reduction="token_mean")
    assert constant.item() == pytest.approx(token_mean.item() * 5 / 8)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "constant"])
def test_micro_batches_with_global_counts_add_up(reduction):
    advantages = torch.tensor(GROUP, dtype=torch.float64)
    options = dict(reduction=reduction, max_length=8)
    logp, old, _, mask = tensors()
    policy_loss(logp, old, advantages, mask, **options).backward()
    whole, logp.grad = logp.grad, None
    for part in (slice(0, 1), slice(1, 4)):
        policy_loss(
            logp[part], old[part], advantages[part], mask[part], total_sequences=4, total_tokens=mask.sum(), **options
        ).backward()
    torch.testing.assert_close(logp.grad, whole, atol=1e-15, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "constant"])
def test_masked_tokens_and_rows_are_exactly_nothing(reduction):
    logp, old, _, mask = tensors()
    with torch.no_grad():
        logp[0, 4] = float("-inf")  # what a suppressed id outside the response would give
    mask = mask.clone()
    mask[1] = False
    advantages = torch.tensor(GROUP, dtype=torch.float64)
    loss = policy_loss(logp, old, advantages, mask, reduction=reduction, max_length=8)
    loss.backward()
    assert torch.isfinite(loss)
    assert (logp.grad[~mask] == 0).all()
    assert policy_loss(logp[:0], old[:0], advantages[:0], mask[:0], reduction=reduction, max_length=8).item() == 0


def test_confidence_is_the_mean_of_probabilities():
    logp = torch.tensor([[0.5, 0.25, 0.9], [0.2, 0.9, 0.9]]).log()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(token_confidence(logp, mask), torch.tensor([0.375, 0.2]))
    assert token_confidence(logp, torch.zeros_like(mask)).tolist() == [0.0, 0.0]


def test_cgpo_advantage_is_reward_minus_detached_confidence():
    logp = torch.tensor([[0.5, 0.25]]).log().requires_grad_()
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages = cgpo_advantages(torch.tensor([1.0]), token_confidence(logp, mask))
    assert advantages.tolist() == pytest.approx([0.625])
    assert not advantages.requires_grad


def test_sft_loss_is_cross_entropy():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    tokens, mask = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[True, True, True], [True, False, False]])
    logp = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    expected = torch.nn.functional.cross_entropy(logits[mask], tokens[mask])
    torch.testing.assert_close(sft_loss(logp, mask), expected)
    parts = sum(sft_loss(logp[i : i + 1], mask[i : i + 1], total_tokens=mask.sum()) for i in range(2))
    torch.testing.assert_close(parts, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(ratio="word"), "token or sequence"),
        (dict(reduction="mean"), "sequence_mean, token_mean or constant"),
        (dict(reduction="constant"), "max_length"),
        (dict(beta=0.1), "logp_ref"),
        (dict(entropy_coef=0.1), "needs entropy"),
        (dict(dual_clip=1.0), "above 1"),
        (dict(dual_clip=3.0, surrogate="weighted"), "weighted has none"),
    ],
)
def test_wrong_choices_say_what_is_allowed(options, words):
    logp, old, _, mask = tensors()
    with pytest.raises(ValueError, match=words):
        policy_loss(logp, old, torch.tensor(GROUP, dtype=torch.float64), mask, **options)


def test_weights_multiply_the_loss_of_a_token_but_not_its_kl():
    """One response of two tokens on-policy, A = 1: -(0.5 + 2) / 2, and the KL term on top as it was."""
    logp = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    mask, a, weights = torch.ones(1, 2, dtype=torch.bool), torch.ones(1), torch.tensor([[0.5, 2.0]])
    reference = logp + torch.tensor([[0.1, -0.2]])
    kl = policy_loss(logp, logp, 0 * a, mask, logp_ref=reference, beta=0.5)
    assert kl > 0
    weighed = policy_loss(logp, logp, a, mask, weights=weights, logp_ref=reference, beta=0.5)
    torch.testing.assert_close(weighed, -(0.5 + 2) / 2 + kl)


@pytest.mark.parametrize(
    ("reduction", "mean"), [("sequence_mean", (2 + 5) / 2), ("token_mean", 9 / 3), ("constant", 9 / (2 * 4))]
)
def test_an_entropy_bonus_is_reduced_as_the_rest_of_the_loss(reduction, mean):
    """Entropies 1 and 3 of the two tokens of one response, 5 of the one token of another, and 7 that is padded."""
    logp, mask = torch.zeros(2, 2), torch.tensor([[True, True], [True, False]])
    entropy = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    options = {"reduction": reduction, "max_length": 4}
    plain = policy_loss(logp, logp, torch.ones(2), mask, **options)
    bonus = policy_loss(logp, logp, torch.ones(2), mask, entropy=entropy, entropy_coef=0.1, **options)
    assert (plain - bonus).item() == pytest.approx(0.1 * mean)


def test_k3_averages_to_the_divergence_over_the_policys_own_tokens():
    """sum_v p (q/p - log(q/p) - 1) = KL(p || q) over a vocabulary of three, and what is padded is 0."""
    p, q = torch.tensor([[0.5, 0.3, 0.2]]).double(), torch.tensor([[0.1, 0.6, 0.3]]).double()
    everywhere = torch.ones(1, 3, dtype=torch.bool)
    divergence = (p * (p / q).log()).sum()
    torch.testing.assert_close((p * k3(p.log(), q.log(), everywhere)).sum(), divergence)
    assert (k3(p.log(), q.log(), everywhere) > 0).all()
    infinite = torch.full_like(p, float("-inf"))
    assert k3(infinite, infinite, ~everywhere).tolist() == [[0, 0, 0]]


HALVES = [torch.float16, torch.bfloat16]


def drifting(dtype, rows=4, length=700):
    """Log-probabilities of long responses whose policy has drifted a little, as half precision holds them."""
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(rows, length, generator=generator)
    logp = old + 0.05 * torch.randn(rows, length, generator=generator)
    mask = torch.arange(length) < torch.tensor([[length], [511], [300], [1]])
    return logp.to(dtype), old.to(dtype), mask


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "options",
    [
        dict(ratio="sequence", clip=(3e-4, 4e-4)),
        dict(),
        dict(beta=0.1, unbiased_kl=True),
        dict(reduction="token_mean", surrogate="weighted", clip=(1, 4)),
        dict(reduction="constant", max_length=700, entropy_coef=0.1),
    ],
)
def test_half_precision_is_computed_in_float32(dtype, options):
    """Loss and gradient are those of the same numbers in float64; a gradient is rounded to the precision of its leaf."""
    logp, old, mask = drifting(dtype)
    advantages = torch.tensor([1.0, -0.5, 0.25, -1.0])
    results = []
    for precise in (torch.float64, dtype):
        leaf = logp.to(precise).requires_grad_()
        others = dict(logp_ref=old.to(precise) - 0.1, entropy=-old.to(precise))
        loss = policy_loss(leaf, old.to(precise), advantages.to(precise), mask, **others, **options)
        loss.backward()
        results.append((loss, leaf.grad))
    (expected, gradient), (found, found_gradient) = results
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-3 if options.get("beta") else 1e-5)  # ref is rounded
    assert found_gradient.dtype == dtype
    scale = gradient.abs().max()
    torch.testing.assert_close(
        found_gradient.double(), gradient, atol=float(scale) * 1e-4, rtol=2 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_what_sums_over_tokens_is_right_in_half_precision(dtype):
    """Ratios of responses that leave 1 by less than half precision can, and 511 tokens, which bfloat16 cannot count."""
    logp, old, mask = drifting(dtype)
    for level in ("token", "sequence"):
        found = log_ratio(logp, old, mask, level)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found.double(), log_ratio(logp.double(), old.double(), mask, level), atol=1e-7, rtol=1e-5
        )
    pairs = [
        (token_confidence(logp, mask), token_confidence(logp.double(), mask)),
        (sft_loss(logp, mask), sft_loss(logp.double(), mask)),
        (k3(logp, old, mask), k3(logp.double(), old.double(), mask)),
    ]
    for found, expected in pairs:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    for level in ("token", "sequence"):
        half = clip_fractions(logp, old, advantages, mask, ratio=level, clip=(3e-4, 4e-4))
        assert half == clip_fractions(logp.double(), old.double(), advantages, mask, ratio=level, clip=(3e-4, 4e-4))


@pytest.mark.parametrize("far", [1e4, -1e4])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(ratio="sequence"),
        dict(surrogate="weighted", clip=(1, 4)),
        dict(beta=0.1),
        dict(beta=0.1, unbiased_kl=True),
    ],
)
def test_no_loss_and_no_gradient_is_infinite_however_far_two_policies_lie_apart(options, advantage, far):
    old = torch.full((1, 3), -1.0)
    logp = (old + torch.tensor([[far, 0.1, 0.0]])).requires_grad_()
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss = policy_loss(logp, old, torch.tensor([advantage]), mask, logp_ref=old, **options)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logp.grad).all()


def test_log_ratios_are_clamped_at_twenty_nats():
    """As verl does. Nearer to 0 nothing is changed, to the last bit."""
    assert MAX_LOG_RATIO == 20
    far, mask = torch.tensor([[-1e4, -20.0, 0.0, 19.5, 1e4]]), torch.ones(1, 5, dtype=torch.bool)
    zeros = torch.zeros_like(far)
    assert log_ratio(far, zeros, mask).tolist() == [[-20, -20, 0, 19.5, 20]]
    assert log_ratio(far[:, -1:], zeros[:, :1], mask[:, :1], "sequence").tolist() == [[20]]
    expected = torch.tensor([[20.0, 20.0, 0.0, -19.5, -20.0]])  # of the reference to the policy
    assert torch.equal(k3(far, zeros, mask), expected.exp() - expected - 1)


def test_a_clamp_at_twenty_nats_leaves_on_policy_losses_as_they_are_to_the_bit():
    logp, old, _, mask = tensors()
    logp, old = logp.detach().float().requires_grad_(), old.float()
    advantages = torch.tensor(GROUP)
    loss = policy_loss(logp, logp.detach(), advantages, mask, reduction="token_mean")
    assert loss.equal(torch.where(mask, -advantages[:, None].expand_as(logp), 0.0).sum() / mask.sum())
    near = log_ratio(logp, old, mask)
    assert near.equal(torch.where(mask, logp - old, 0.0))


def test_dual_clip_by_hand():
    """A = -2, clip 0.2, c = 3: r = 5 costs 3 * 2 and no more, r = 2 costs 2 * 2, r = 0.5 costs 0.8 * 2; A = 2 as without."""
    old, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    logp = torch.tensor([[5.0, 2.0, 0.5]]).log().requires_grad_()
    loss = policy_loss(logp, old, torch.tensor([-2.0]), mask, dual_clip=3.0)
    loss.backward()
    assert loss.item() == pytest.approx((6 + 4 + 1.6) / 3)
    assert logp.grad.tolist() == [pytest.approx([0, 4 / 3, 0])]  # d(2 r) / d log r = 2 r, over three tokens
    up = policy_loss(logp, old, torch.tensor([2.0]), mask, dual_clip=3.0)
    assert up.item() == pytest.approx(-(2.4 + 2.4 + 1) / 3)


@pytest.mark.parametrize("c", [1.05, 1.5, 3.0])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_dual_clip_is_that_of_verl(ratio, c):
    """Which has losses in place of gains: the larger of two, and where A < 0 the smaller of that and -c A."""
    generator = torch.Generator().manual_seed(1)
    old, drift = -torch.rand(2, 6, 9, generator=generator).double()
    logp, advantages = old + 4 * (drift + 0.5), torch.randn(6, generator=generator).double()
    logp[:2] += 2
    mask = torch.ones(6, 9, dtype=torch.bool)
    log = logp - old
    r = (log.mean(1, keepdim=True).expand_as(log) if ratio == "sequence" else log).exp()
    a = advantages[:, None]
    assert ((r > c) & (a < 0)).any()
    once = torch.max(-a * r, -a * r.clamp(0.8, 1.28))
    expected = torch.where(a < 0, torch.min(-a * c, once), once).mean()
    found = policy_loss(logp, old, advantages, mask, ratio=ratio, clip=(0.2, 0.28), dual_clip=c, reduction="token_mean")
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_the_unbiased_kl_term_is_that_of_the_divergence():
    """Summed over a vocabulary of five, weighed by the old policy, on it and off it; uncorrected it is another."""
    generator = torch.Generator().manual_seed(0)
    logits, other, reference = torch.randn(3, 5, generator=generator).double()
    q, mask = reference.log_softmax(0), torch.ones(5, 1, dtype=torch.bool)
    for sampled, right in ((logits, True), (other, True), (logits, False)):
        leaf, old = logits.clone().requires_grad_(), sampled.log_softmax(0)
        logp = leaf.log_softmax(0)
        expected = torch.autograd.grad((logp.exp() * (logp - q)).sum(), leaf, retain_graph=True)[0]
        # Each token of the vocabulary is a response of one token, as often as the old policy samples it.
        terms = [
            policy_loss(
                logp[v : v + 1, None], old[v : v + 1, None], torch.zeros(1), mask[:1],
                logp_ref=q[v : v + 1, None], beta=1.0, unbiased_kl=right,
            )
            for v in range(5)
        ]  # fmt: skip
        (found,) = torch.autograd.grad(sum(old[v].exp() * term for v, term in enumerate(terms)), leaf)
        assert torch.allclose(found, expected, atol=1e-12) == right
