"""RL steps of two DDP processes (gloo) against those of one: the same gradients, though their responses differ in length."""

from functools import partial

import lightning as L
import pytest
import torch

from lightning_sal.modules import CGPO, DAPO, GRPO, BatchLOO
from lightning_sal.rewards import Reward, RewardTerm, Scores
from lightning_sal.samples import Rollout
from tests.distributed.processes import in_processes
from tests.modules.parts import POLICY, StripeSegmenter, scenes, trained, trainer

PROMPTS, G = 4, 4
CASES = {
    "grpo": (GRPO, "64-true", {}),
    "cgpo": (CGPO, "64-true", {}),
    "dapo": (DAPO, "64-true", {}),
    "dapo float32": (DAPO, "32-true", {}),
    "clipped": (GRPO, "64-true", {"gradient_clip_val": 1e-3}),
    "cgpo, cut off": (partial(CGPO, mask_truncated=True), "64-true", {}),
    "cgpo, all options": (
        partial(CGPO, confidence_over="answer", confidence_mean="geometric", normalise="scale", calibrate=True),
        "64-true",
        {},
    ),
    "batch loo": (BatchLOO, "64-true", {}),
    "dapo, cut off": (partial(DAPO, mask_truncated=True), "64-true", {}),
}
RELATIVE = {"64-true": 1e-10, "32-true": 1e-6}


class Written:
    """Responses that depend on the prompt alone; the first, third, ... prompt has short ones, the others long ones.

    More of one rank's than of the other's are cut off.
    """

    exact = True

    def sample(self, policy, groups, prompts, *, responses, **_):
        numbers = [int(group.key.rpartition("-")[2]) for group in groups for _ in range(responses)]
        texts = tuple(
            "a red circle " * (1 + 6 * (number % 2) + place % responses) + "!" * (number + place % responses)
            for place, number in enumerate(numbers)
        )
        tokens, mask = policy.encode_responses(texts)
        cut = [place % responses < number for place, number in enumerate(numbers)]
        return Rollout(texts, tokens, mask, torch.zeros(tokens.shape), torch.tensor(cut))


class Marks(RewardTerm):
    """Tells the responses to a prompt apart, but for the first prompt, which DAPO drops."""

    name = "marks"
    bounds = (0.0, 1.0)

    def forward(self, responses):
        values = [0.5 if item.group.key.endswith("-0") else item.text.count("!") % 5 / 5 for item in responses]
        return Scores(torch.tensor(values), (None,) * len(responses))


class Keep(L.Callback):
    """Starts from adapters that do something; keeps gradients of each optimisation step as callbacks see them."""

    def __init__(self):
        self.gradients = []

    def on_fit_start(self, trainer, pl_module):
        generator = torch.Generator().manual_seed(0)
        for name, parameter in pl_module.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05, generator=generator)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append({n: whole(p.grad) for n, p in pl_module.named_parameters() if p.requires_grad})


def whole(tensor):
    """A copy, put together from its shards where it has some."""
    return tensor.detach().full_tensor() if hasattr(tensor, "full_tensor") else tensor.detach().clone()


def rl_module(algorithm, seed=0, **options):
    torch.manual_seed(seed)
    group = {} if algorithm is CGPO else {"responses_per_prompt": G}
    defaults = {"policy": POLICY, "segmenter": StripeSegmenter(), "reward": Reward([Marks()]), "sampler": Written()}
    defaults |= {"optimizer": partial(torch.optim.SGD, lr=0.1), "micro_batch_size": 3, "updates_per_rollout": 2}
    return algorithm(**{**defaults, **group, **options})


def by_ranks(folder, name):
    """What one process left behind, and each of two."""
    return [torch.load(folder / f"{name}-{which}.pt", weights_only=True) for which in ("1-0", "2-0", "2-1")]


def assert_equal(one, two, relative):
    """The same gradients of each update, and weights and loss after them, up to a share of the largest number."""
    for rank in two:
        assert len(rank["gradients"]) == len(one["gradients"]) > 0
        pairs = zip([*rank["gradients"], rank["weights"]], [*one["gradients"], one["weights"]], strict=True)
        for found, expected in pairs:
            scale = max(float(value.abs().max()) for value in expected.values())
            assert scale > 0
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, atol=relative * scale, rtol=relative, msg=name)
        assert float(rank["loss"]) == pytest.approx(float(one["loss"]), rel=1e-5)


def work(world_size, rank, folder):
    for name, (algorithm, precision, options) in CASES.items():
        module, keep, calls = rl_module(algorithm), Keep(), []
        module.configure_model()
        score = module.policy.score_tokens
        module.policy.score_tokens = lambda *args, score=score, calls=calls, **options: (
            calls.append(len(args[1])) or score(*args, **options)
        )
        strategy = {"strategy": "ddp", "devices": world_size} if world_size > 1 else {}
        run = trainer(folder, max_steps=1, callbacks=[keep], precision=precision, **strategy, **options)
        run.fit(module, datamodule=scenes(streams=["rl"], batch_size=PROMPTS // world_size))
        found = {
            "gradients": keep.gradients,
            "weights": trained(module),
            "scored": len(calls),
            "buffers": {name: buffer.view(torch.float64) for name, buffer in module.saved_buffers().items()},
            "loss": run.callback_metrics["train/loss"],
            "entropy": run.callback_metrics["train/entropy"],
        }
        torch.save(found, folder / f"{name}-{world_size}-{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, (1, 2), folder)
    return {name: by_ranks(folder, name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_both_updates_of_a_rollout_have_the_gradient_of_one_process(name, found):
    one, *two = found[name]
    assert len(one["gradients"]) == 2
    assert_equal(one, two, RELATIVE[CASES[name][1]])


@pytest.mark.parametrize("name", ["grpo", "cgpo"])
def test_the_entropy_is_that_of_the_responses_of_all_ranks(name, found):
    one, *two = found[name]
    assert [float(rank["entropy"]) for rank in two] == [pytest.approx(float(one["entropy"]), rel=1e-6)] * 2


def test_ranks_score_as_often_as_each_other_where_one_learns_from_fewer_responses(found):
    _, first, second = found["dapo"]
    # Two updates of ceil(G / 3) micro-batches a prompt: the first rank keeps one prompt, the second two.
    assert first["scored"] == second["scored"] == 2 * 2 * 2


def test_the_calibration_is_that_of_the_responses_of_all_ranks(found):
    one, *two = found["cgpo, all options"]
    calibration = one["buffers"]["calibration_bits"]
    assert calibration[0] == PROMPTS * G
    for rank in two:
        torch.testing.assert_close(rank["buffers"]["calibration_bits"], calibration, rtol=1e-12, atol=0)
