"""Policy losses against golden values, hand arithmetic and identities.

The golden values are what TRL 1.16.0's GRPOTrainer computes in float64 for the tensors below.
"""

import pytest
import torch

from lightning_sal.objectives import cgpo_advantages, clip_fractions, k3, policy_loss, sft_loss, token_confidence

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
