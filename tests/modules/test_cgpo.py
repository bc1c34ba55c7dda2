"""Variants of CGPO and its control, against updates written out by hand, and what their runs keep."""

from functools import partial

import numpy as np
import pytest
import torch

from lightning_sal.modules import CGPO, BatchLOO
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.samplers import PolicySampler
from tests.modules.parts import assert_advantages_need_no_confidence_of_others, scenes, trained, trainer
from tests.modules.test_rl import by_hand, close, made, step

VARIANTS = {
    "centre": partial(CGPO, normalise="centre"),
    "scale": partial(CGPO, normalise="scale"),
    "answer": partial(CGPO, confidence_over="answer"),
    "geometric": partial(CGPO, confidence_mean="geometric"),
    "calibrated": partial(CGPO, calibrate=True),
    "all": partial(CGPO, confidence_over="answer", confidence_mean="geometric", normalise="scale", calibrate=True),
    "batch": BatchLOO,
}
TEXTS = [
    "<think>a red circle</think><answer><rg>the red circle</rg></answer>",
    "<answer>no end of it, so all of it counts",
    "<think>?</think>\n<answer> <rg>blue</rg><rg>square</rg>\n</answer> .",
]
ANSWERS = ["<rg>the red circle</rg>", TEXTS[1], "<rg>blue</rg><rg>square</rg>"]
PAST = [(0.001, 0.2), (0.004, 0.3), (0.009, 0.9)]  # confidences and rewards of earlier steps, of no weight yet lost


class Said(PolicySampler):
    """Texts as if the policy had written them, with its log-probabilities of their tokens."""

    def sample(self, policy, groups, prompts, *, responses, temperature, **_):
        texts = tuple(TEXTS[number % 3] for number in range(len(groups) * responses))
        tokens, mask = policy.encode_responses(texts)
        logp = policy.score(prompts, tokens, mask, temperature)
        return policy.rollout(texts, tokens, mask, logp, torch.zeros(len(mask), dtype=torch.bool))


def past(module):
    """Gives a module that calibrates something to go by."""
    if getattr(module, "calibrate", False):
        c, r = np.array(PAST).T
        module.calibration.copy_(torch.tensor([len(c), c.sum(), r.sum(), (c**2).sum(), (c * r).sum()]))
    return module


def variant(name, **options):
    return past(made(VARIANTS[name], **{"sampler": Said(), "responses_per_prompt": 1, **options}))


def answer_of(module, record, row):
    """Whether each token of a response holds a character of its answer, by what ever longer beginnings decode to."""
    tokens, tokenizer = record.rollout.tokens[row][record.rollout.mask[row]].tolist(), module.policy.processor.tokenizer
    ends = [len(tokenizer.decode(tokens[: end + 1])) for end in range(len(tokens))]
    first = TEXTS[row].index(ANSWERS[row])
    last = first + len(ANSWERS[row])
    if ANSWERS[row] == TEXTS[row]:
        return [True] * len(tokens)  # the end of turn too
    return [end > first and start < last for start, end in zip([0, *ends], ends, strict=False)]


def advantages_by_hand(name, module, record, rewards, old):
    probability = [logp.exp().double().numpy() for logp in old]
    if name in ("answer", "all"):
        probability = [p[answer_of(module, record, row)] for row, p in enumerate(probability)]
    c = np.array([np.exp(np.log(p).mean()) if name in ("geometric", "all") else p.mean() for p in probability])
    r = rewards.double().numpy()
    if name == "batch":
        return torch.tensor([r[row] - np.delete(r, row).mean() for row in range(len(r))])
    if name in ("calibrated", "all"):
        c = np.polyval(np.polyfit(*np.array(PAST).T, 1), c).clip(0, 1)
    a = r - c
    a = a - a.mean() if name in ("centre", "scale", "all") else a
    return torch.tensor(a / (a.std(ddof=1) + 1e-4) if name in ("scale", "all") else a)


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_and_advantages_are_those_of_the_formulas(name, tmp_path):
    module = variant(name, updates_per_rollout=2, micro_batch_size=2)
    keep = step(module, tmp_path)
    record, given = keep.record, []

    def advantages(rewards, old):
        given.append(advantages_by_hand(name, module, record, rewards, old))
        return given[0].float()

    expected = by_hand(module, record, keep.start, 2, advantages)
    torch.testing.assert_close(record.advantages.double(), given[0], rtol=1e-4, atol=1e-6)
    for found, wanted in zip(keep.gradients, expected, strict=True):
        close(found, wanted, 1e-4)


def test_the_confidence_that_is_logged_is_that_of_the_paper(tmp_path):
    """So that reliability and types of responses compare over variants."""
    plain, other = (step(variant(name), tmp_path).record for name in ("centre", "all"))
    assert plain.confidence.equal(other.confidence)


def test_cgpo_as_published_is_reward_minus_confidence_to_the_bit_and_keeps_nothing(tmp_path):
    module = made(CGPO, micro_batch_size=2)
    record = step(module, tmp_path).record
    assert record.advantages.equal(record.rewards.total - record.confidence)
    assert not module.saved_buffers()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_does_not_depend_on_the_micro_batch(name, tmp_path):
    (whole,), *cut = (
        step(variant(name, micro_batch_size=size), tmp_path, precision="64-true").gradients for size in (None, 1, 2)
    )
    for (gradient,) in cut:
        close(gradient, whole, 1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_advantages_need_no_confidence_of_others(name):
    assert_advantages_need_no_confidence_of_others(variant(name))


def fit(module, folder, steps, checkpoint=None):
    run = trainer(folder, max_steps=steps)
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=3), ckpt_path=checkpoint, weights_only=True)
    return run


def test_the_line_is_fitted_to_earlier_steps_which_are_forgotten(tmp_path):
    module, pairs, weights = made(CGPO, calibrate=True), [], []
    for steps in (1, 2, 3):
        run = fit(module, tmp_path, steps, tmp_path / "last.ckpt" if pairs else None)
        logged = {name: float(run.callback_metrics[f"train/calibration/{name}"]) for name in ("intercept", "slope")}
        slope, intercept = (1, 0)  # c itself
        if pairs:
            c, r = torch.cat(pairs, 1).double().numpy()
            slope, intercept = np.polyfit(c, r, 1, w=np.sqrt(weights))
            if slope < 0:
                slope, intercept = 0, np.average(r, weights=weights)
        assert logged == pytest.approx({"intercept": intercept, "slope": slope}, rel=1e-4)
        record = module.record
        promised = (intercept + slope * record.confidence).clamp(0, 1)
        torch.testing.assert_close(record.advantages, record.rewards.total - promised, rtol=1e-4, atol=1e-6)
        pairs.append(torch.stack([record.confidence, record.rewards.total]))
        weights = [0.95 * weight for weight in weights] + [1] * len(record.confidence)
        run.save_checkpoint(tmp_path / "last.ckpt")


def test_a_run_that_goes_on_is_the_one_that_never_stopped(tmp_path):
    whole = made(VARIANTS["all"])
    fit(whole, tmp_path, 4)
    stopped = made(VARIANTS["all"])
    run = fit(stopped, tmp_path, 2)
    run.save_checkpoint(tmp_path / "at2.ckpt")
    saved = torch.load(tmp_path / "at2.ckpt", weights_only=True)["buffers"]
    assert saved["calibration_bits"].equal(stopped.calibration_bits)
    went_on = made(VARIANTS["all"])
    torch.manual_seed(5)
    fit(went_on, tmp_path, 4, tmp_path / "at2.ckpt")
    assert went_on.calibration.equal(whole.calibration)
    assert not went_on.calibration.equal(stopped.calibration)
    expected = trained(whole)
    assert all(weight.equal(expected[name]) for name, weight in trained(went_on).items())


def test_the_calibration_stays_float64_in_half_precision():
    module = past(made(CGPO, calibrate=True))
    before = module.calibration.clone()
    assert module.bfloat16().calibration.equal(before)


def test_a_family_whose_tokens_have_no_known_place_is_refused_before_training(monkeypatch):
    def unknown(*_):
        raise ValueError("token 5 '▁a' is not of a byte-level BPE, so its place in the text is unknown")

    monkeypatch.setattr("lightning_sal.policy.policy.token_bytes", unknown)
    with pytest.raises(ValueError, match=r"confidence_over answer: token 5 .*; take confidence_over response"):
        made(CGPO, confidence_over="answer").configure_model()


def test_the_general_path_knows_the_answer_too(tmp_path):
    """The same texts on either path have their answers at the same tokens."""
    taken = []
    for path in ("fast", "general"):
        policy = PolicyConfig("tiny-scratch", lora=LoRA(rank=4), path=path)
        module = variant("answer", policy=policy)
        record = step(module, tmp_path).record
        for row in range(3):
            inside = torch.tensor(answer_of(module, record, row))
            logp = record.rollout.logp[row][record.rollout.mask[row]]
            expected = record.rewards.total[row] - logp.exp()[inside].mean()
            torch.testing.assert_close(record.advantages[row], expected, rtol=1e-4, atol=1e-6)
        taken.append(record.advantages)
    torch.testing.assert_close(*taken, rtol=1e-3, atol=1e-5)


def test_a_value_that_an_option_does_not_have_is_refused():
    with pytest.raises(ValueError, match="'center' is none of none, centre, scale"):
        made(CGPO, normalise="center")
