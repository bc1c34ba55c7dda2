"""Terms that enter the reward by their rank: by hand, on values that are given."""

import pytest
import torch
from torch import nn

from lightning_sal.evaluation.metrics import Evaluation
from lightning_sal.rewards import Format, RankedReward, Response, Reward, RewardTerm, Scores
from lightning_sal.rewards.total import join_rewards
from lightning_sal.tasks import TASKS
from tests.rewards.test_total import Remembering, from_yaml, group, respond, say


class Given(RewardTerm):
    """The numbers in the texts, one a term, on any scale; an empty one is unknown."""

    def __init__(self, name="given", at=0):
        super().__init__()
        self.name, self.at = name, at

    def forward(self, responses):
        texts = [response.text.split()[self.at] for response in responses]
        values = torch.tensor([0.0 if text == "-" else float(text) for text in texts], dtype=torch.float64)
        return Scores(values, (None,) * len(texts), known=torch.tensor([text != "-" for text in texts]))


def said(*texts, groups=None):
    return [
        Response(each, text, TASKS["sod"].parse(""))
        for each, text in zip(groups or [group("sod")] * len(texts), texts, strict=True)
    ]


def learn(reward, responses):
    """One step: what the responses are worth, which is then learnt from."""
    batch = reward(responses)
    reward.commit({name: batch.observed[name] for name in reward.remembers})
    return batch


def test_steps_by_hand():
    """Three zeros, then -2, 5, 1: ranks are among past steps alone, and values stay as they are."""
    reward = RankedReward([Given()], capacity=5, zeros=3)
    first = learn(reward, said("-2", "5", "1"))
    assert first.total.tolist() == [0.0, 1.0, 1.0]
    second = learn(reward, said("0.5", "1", "-3", "100"))  # among 0, 0, -2, 5, 1
    assert second.terms["given"].tolist() == [0.5, 1.0, -3.0, 100.0]
    assert second.terms["given_rank"].tolist() == pytest.approx([0.6, 0.8, 0.0, 1.0])
    assert second.total.tolist() == pytest.approx([0.6, 0.8, 0.0, 1.0])
    assert second.reasons["given_rank"][0] == "0.6 of 5 past values are at most 0.5"
    assert reward.queue("given").rows[:, 0].tolist() == [1.0, 0.5, 1.0, -3.0, 100.0]


def test_scoring_moves_nothing():
    reward = RankedReward([Given()], capacity=5, zeros=3)
    before = {name: value.clone() for name, value in reward.state_dict().items()}
    for _ in range(3):
        reward(said("1", "2"))
    assert all(value.equal(before[name]) for name, value in reward.state_dict().items())


def test_weights_are_those_of_what_enters():
    terms = [Given("first", 0), Given("second", 1), Given("third", 2)]
    weights = {"first": 0.5, "second": 0.25, "third": -0.25}
    reward = RankedReward(terms, weights, ranked=["first", "third"], capacity=4, zeros=2)
    learn(reward, said("10 0.5 0.2", "30 0.5 0.4"))
    batch = reward(said("20 0.5 0.3", "5 1 0.1"))
    assert reward.names == ("first", "second", "third", "first_rank", "third_rank")
    assert tuple(batch.terms) == reward.names
    ranks = {"first": [0.8, 0.5], "third": [0.8, 0.5]}  # 3 of 4 and 2 of 4: 0.75 is rounded to 0.8
    assert batch.terms["first_rank"].tolist() == pytest.approx(ranks["first"])
    assert batch.total.tolist() == pytest.approx([0.5 * 0.8 + 0.25 * 0.5 - 0.25 * 0.8, 0.5 * 0.5 + 0.25 - 0.25 * 0.5])


def test_an_unknown_value_is_neither_ranked_nor_remembered():
    """The mean rank of the other responses to the prompt stands in for it; each term has a queue of its own length."""
    one, other = group("sod"), group("sod")
    reward = RankedReward([Given("first", 0), Given("second", 1)], capacity=8, zeros=1, digits=None)
    groups = [one, one, one, other]
    learn(reward, said("1 -", "2 -", "3 0.5", "4 0.5", groups=groups))
    assert reward.queue("first").rows[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert reward.queue("second").rows[:, 0].tolist() == [0.0, 0.5, 0.5]
    batch = reward(said("1 0.1", "- 0.7", "3 -", "- -", groups=groups))
    assert batch.known["first_rank"].tolist() == batch.known["first"].tolist() == [True, False, True, False]
    ranks = {"first": [0.4, 0.6, 0.8], "second": [1 / 3, 1.0, 2 / 3]}
    expected = [0.5 * a + 0.5 * b for a, b in zip(ranks["first"], ranks["second"], strict=True)]
    assert batch.total.tolist() == pytest.approx([*expected, 0.0])
    assert set(batch.of(1)) == {"second", "second_rank"}
    assert batch.reasons["first_rank"][1] is None


def test_a_term_that_remembers_does_so_beside_its_rank():
    reward = RankedReward([Remembering(), Format()], ranked=["remembering"], capacity=4, zeros=1)
    assert reward.remembers == ("remembering", "remembering_rank")
    text = say("sod", "half")
    learn(reward, respond([group("sod")] * 2, [text] * 2))
    assert reward.state_dict()["terms.remembering.total"] == 2 * len(text)
    assert reward.queue("remembering").rows[:, 0].tolist() == [0.0, 1.0, 1.0]


def test_a_term_without_bounds_may_stand_beside_a_confidence_once_it_is_ranked():
    with pytest.raises(ValueError, match="'given' states no bounds"):
        Reward([Given()]).require_probability("CGPO")
    RankedReward([Given()]).require_probability("CGPO")
    with pytest.raises(ValueError, match="'other' states no bounds"):
        RankedReward([Given(), Given("other", 1)], ranked=["given"]).require_probability("CGPO")
    with pytest.raises(ValueError, match=r"lies in \[0, 2\]"):
        RankedReward([Given()], {"given": 2.0}).require_probability("CGPO")
    assert RankedReward([Given()]).bounds == (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"zeros": 0}, "give zeros >= 1"),
        ({"capacity": 100}, "capacity 100 does not hold the 128 rows"),
        (
            {"ranked": ["box"]},
            r"ranked \['box'\] must name one or more of the reward terms \['correctness', 'format'\]",
        ),
        ({"ranked": []}, "must name one or more"),
        ({"ranked": ["format", "format"]}, "each once"),
        ({"digits": -2}, "digits at least 0"),
        ({"terms": [Given(), Given("given_rank")]}, "'given_rank' has the name of a rank"),
    ],
)
def test_what_cannot_rank_is_refused(options, line):
    with pytest.raises(ValueError, match=line) as error:
        RankedReward(**options)
    assert len(str(error.value).splitlines()) == 1


def test_the_defaults_are_those_of_the_recipe():
    queue = RankedReward().queue("correctness")
    assert (queue.capacity, len(queue), queue.digits) == (2048, 128, 1)
    assert not queue.rows.any()


def test_instances_and_regions_by_rank():
    """Correctness is S-measure for SOD, of matched instances for SIS; both are ranked among what was seen of both."""
    reward = RankedReward(capacity=4, zeros=1, weights={"correctness": 1.0, "format": 0.0})
    texts = [say("sod", "half"), say("sis", "half")]
    groups = [group("sod"), group("sis")]
    first = learn(reward, respond(groups, texts))
    assert first.total.tolist() == [1.0, 1.0]
    low, high = sorted(first.terms["correctness"].tolist())
    worse, same = respond([group("sod"), group("sod")], [say("sod", "quarter"), say("sod", "half")])
    found = reward([worse, same]).terms["correctness_rank"].tolist()
    past = [0.0, low, high]
    values = [0.25, 0.5]
    assert found == pytest.approx([round(sum(q <= v + 1e-7 for q in past) / 3, 1) for v in values])


def test_ranks_are_evaluated_beside_values():
    reward = RankedReward(capacity=8, zeros=2)
    responses = respond([group("sod")] * 2, [say("sod", "quarter"), "nothing"])
    evaluation = Evaluation(terms=reward.names)
    evaluation.update(evaluation.measure(responses), reward(responses))
    values = {name: float(value) for name, value in evaluation.compute().items()}
    assert values["sod/reward_correctness"] == pytest.approx(0.125)
    assert values["sod/reward_correctness_rank"] == values["sod/reward_format_rank"] == 1.0


def test_rounds_are_joined():
    reward = RankedReward([Given()], capacity=4, zeros=1)
    whole = reward(said("1", "2", "3"))
    parts = join_rewards([reward(said("1")), reward(said("2", "3"))])
    assert parts.total.equal(whole.total)
    assert parts.observed["given_rank"].equal(whole.observed["given_rank"])
    assert parts.reasons == whole.reasons


def test_an_empty_step():
    reward = RankedReward(capacity=4, zeros=1)
    batch = learn(reward, [])
    assert batch.total.shape == (0,)
    assert len(reward.queue("format")) == 1


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.bfloat16])
def test_the_queue_keeps_its_bits_in_half_precision(convert):
    reward = RankedReward([Given()], capacity=4, zeros=1)
    learn(reward, said("0.3333333333333333"))
    convert(reward)
    assert reward.queue("given").rows[:, 0].tolist() == [0.0, 0.3333333333333333]
    assert reward(said("0.333333333333333", "0.3333333333333333")).total.tolist() == [0.5, 1.0]


def test_yaml():
    reward = from_yaml(
        {"class_path": "lightning_sal.rewards.RankedReward", "init_args": {"capacity": 256, "digits": None}}
    )
    assert isinstance(reward, RankedReward)
    assert reward.queue("format").capacity == 256
