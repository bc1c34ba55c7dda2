"""Steps of every kind of algorithm on ranks, and what checkpoints hold of them."""

import pytest
import torch

from lightning_sal.callbacks import InterleavedSFT, RolloutPanels
from lightning_sal.modules import CGPO, DAPO, GRPO
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.rewards import Alignment, Correctness, Format, RankedReward, Reward, RewardTerm, Scores
from tests.modules.parts import ADAMW, POLICY, StripeSegmenter, scenes, trained, trainer

G = 2


class Letters(RewardTerm):
    """A number without bounds that depends on the text alone and differs between most random responses."""

    name = "letters"

    def forward(self, responses):
        values = torch.tensor([sum(map(ord, item.text)) / 7 for item in responses], dtype=torch.float64)
        return Scores(values, (None,) * len(responses))


def made(algorithm=GRPO, **options):
    torch.manual_seed(0)
    group = {} if algorithm is CGPO else {"responses_per_prompt": G}
    defaults = {"policy": POLICY, "segmenter": StripeSegmenter(), "optimizer": ADAMW, "max_new_tokens": 8}
    return algorithm(**{**defaults, "reward": RankedReward([Letters()], capacity=8, zeros=2), **group, **options})


def fit(module, folder, steps=1, checkpoint=None, batch_size=3, streams=("rl",), **options):
    run = trainer(folder, max_steps=steps, log_every_n_steps=1, **options)
    data = scenes(streams=list(streams), batch_size=batch_size)
    run.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return run


def queue(module, term="letters"):
    return module.reward.queue(term).rows[:, 0].tolist()


@pytest.mark.parametrize("algorithm", [CGPO, GRPO, DAPO])
def test_all_that_there_is_to_rank(algorithm, tmp_path):
    """S-measure of regions and instances, format and alignment, on a policy that keeps the format."""
    module = made(
        algorithm,
        policy=PolicyConfig("tiny-early", lora=LoRA(rank=4)),
        reward=RankedReward([Correctness(), Format(), Alignment()], capacity=16, zeros=1),
        segmenter=None,
        max_new_tokens=56,
    )
    logged = fit(module, tmp_path, steps=2).callback_metrics
    for term in ("correctness", "format", "alignment"):
        assert 0 <= float(logged[f"train/reward/{term}_rank"]) <= 1
        assert f"train/reward/{term}" in logged
        assert len(queue(module, term)) > 1
        if algorithm is not CGPO:
            assert 0 <= float(logged[f"train/telling/{term}_rank"]) <= float(logged[f"train/telling/{term}"]) <= 1


@pytest.mark.parametrize("algorithm", [CGPO, GRPO])
def test_a_step_is_ranked_against_those_before_it_and_remembered_once(algorithm, tmp_path):
    module = made(algorithm, updates_per_rollout=3)
    fit(module, tmp_path, steps=1)
    values = module.record.rewards.terms["letters"].tolist()
    assert module.record.rewards.terms["letters_rank"].eq(1).all()  # against zeros alone
    assert queue(module) == pytest.approx([0.0, 0.0, *values][-8:])
    assert all(weight.isfinite().all() for weight in trained(module).values())


def test_the_advantage_of_cgpo_is_rank_minus_confidence(tmp_path):
    module = made(CGPO, reward=RankedReward([Letters()], capacity=8, zeros=2, digits=None))
    fit(module, tmp_path, steps=2)
    record = module.record
    first, second = made(CGPO, reward=RankedReward([Letters()], capacity=8, zeros=2)), record.rewards.terms["letters"]
    fit(first, tmp_path, steps=1)
    past = queue(first)
    ranks = torch.tensor([sum(q <= value + 1e-6 for q in past) / len(past) for value in second.tolist()])
    torch.testing.assert_close(record.rewards.total, ranks)
    torch.testing.assert_close(record.advantages, ranks - record.confidence)


def test_validation_and_sft_steps_move_nothing(tmp_path):
    module = made(CGPO, reward=RankedReward([Letters(), Format()], capacity=64, zeros=2))
    run = fit(
        module, tmp_path, 3, streams=("rl", "sft"), limit_val_batches=1.0, val_check_interval=1,
        callbacks=[InterleavedSFT(rl_steps=1, sft_steps=2)],
    )  # fmt: skip
    assert len(queue(module)) == 2 + 3
    values = run.validate(module, datamodule=scenes(), verbose=False)[0]
    assert {"val/sod/reward_letters", "val/sod/reward_letters_rank", "val/sis/reward_format_rank"} <= values.keys()
    assert len(queue(module)) == 2 + 3


class Odd(RewardTerm):
    """Tells the responses to every second prompt apart."""

    name = "odd"
    bounds = (0.0, 1.0)

    def forward(self, responses):
        odd = [int(item.group.key.rpartition("-")[2]) % 2 for item in responses]
        values = [place % G / G if told else 0.5 for place, told in enumerate(odd)]
        return Scores(torch.tensor(values), (None,) * len(responses))


def test_what_dynamic_sampling_drops_is_not_remembered(tmp_path):
    reward = RankedReward([Letters(), Odd()], {"letters": 0.0, "odd": 1.0}, ranked=["letters"], capacity=64, zeros=1)
    module = made(DAPO, overlong_buffer=0, reward=reward)
    run = fit(module, tmp_path, batch_size=4)
    assert run.callback_metrics["train/dynamic_sampling/dropped"] == 2
    values = module.record.rewards.terms["letters"].view(4, G)[1::2].flatten().tolist()
    assert queue(module) == pytest.approx([0.0, *values])


def test_dynamic_sampling_gets_going_though_all_ranks_are_equal_at_first(tmp_path):
    module = made(DAPO, overlong_buffer=0, reward=RankedReward([Letters()], capacity=64, zeros=1))
    run = fit(module, tmp_path, steps=1)
    assert run.callback_metrics["train/dynamic_sampling/dropped"] == 3
    assert len(queue(module)) == 1 + 3 * G
    module = made(DAPO, overlong_buffer=0, reward=RankedReward([Letters()], capacity=64, zeros=1))
    run = fit(module, tmp_path, steps=2)
    assert run.callback_metrics["train/dynamic_sampling/dropped"] < 3


def test_panels_give_reasons(tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, "run", version=0)
    fit(made(CGPO), tmp_path, logger=logger, callbacks=[RolloutPanels(every_n_steps=1)])
    events = EventAccumulator(logger.log_dir).Reload()
    (tag, *_) = [tag for tag in events.Tags()["tensors"] if tag.startswith("rollouts/")]
    assert b"letters_rank: 1 of 2 past values are at most " in events.Tensors(tag)[0].tensor_proto.string_val[0]


def test_a_run_that_goes_on_with_a_full_queue_is_the_one_that_never_stopped(tmp_path):
    """The queue is full after the second step, of which the checkpoint is."""
    whole = made(CGPO)  # which seeds what is drawn next
    fit(whole, tmp_path, steps=5)
    stopped = made(CGPO)
    run = fit(stopped, tmp_path, steps=2)
    assert len(queue(stopped)) == 8
    run.save_checkpoint(tmp_path / "at2.ckpt")
    went_on = made(CGPO)
    torch.manual_seed(5)
    fit(went_on, tmp_path, steps=5, checkpoint=tmp_path / "at2.ckpt")
    assert queue(went_on) == queue(whole) != queue(stopped)
    expected = trained(whole)
    assert all(weight.equal(expected[name]) for name, weight in trained(went_on).items())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of a run on ranks, of that without optimizer states, and of a run on values."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run = fit(made(CGPO), folder)
    run.save_checkpoint(folder / "ranks.ckpt")
    run.save_checkpoint(folder / "weights.ckpt", weights_only=True)
    fit(made(CGPO, reward=Reward([Odd()])), folder).save_checkpoint(folder / "values.ckpt")
    return folder


def test_checkpoints_of_adapters_alone_hold_the_queue(checkpoints, tmp_path):
    for name in ("ranks", "weights"):
        saved = torch.load(checkpoints / f"{name}.ckpt", weights_only=True)
        assert not any("queues" in key for key in saved["state_dict"])
        assert saved["buffers"]["reward.queues.letters.length"] == 5
    module = made(CGPO)
    data = scenes(val_size=2)
    trainer(tmp_path, limit_val_batches=1.0).validate(
        module, data, ckpt_path=checkpoints / "weights.ckpt", verbose=False
    )
    assert len(queue(module)) == 5


@pytest.mark.parametrize(
    ("reward", "line"),
    [
        (RankedReward([Letters()], capacity=9, zeros=2), r"letters\.bits, which a step remembers, is \(8, 1\) in it"),
        (RankedReward([Letters(), Format()], capacity=8, zeros=2), "of letters, and here format, letters are ranked"),
        (RankedReward(capacity=8, zeros=2, ranked=["format"]), "remembers values of letters, and here format are"),
    ],
)
def test_a_checkpoint_of_other_ranks_is_refused(reward, line, checkpoints, tmp_path):
    with pytest.raises(ValueError, match=line) as error:
        fit(made(CGPO, reward=reward), tmp_path, 2, checkpoints / "ranks.ckpt")
    assert len(str(error.value).splitlines()) == 1


def test_a_checkpoint_of_a_run_without_ranks_starts_them_anew_and_says_so(checkpoints, tmp_path, caplog):
    caplog.set_level("INFO")
    module = made(CGPO)
    fit(module, tmp_path, 2, checkpoints / "values.ckpt")
    assert len(queue(module)) == 2 + 3
    lines = [line for line in caplog.messages if "the checkpoint lacks" in line]
    assert lines == [
        "the checkpoint lacks reward.queues.letters.bits and 3 more, which steps remember: what it lacks starts anew"
    ]
