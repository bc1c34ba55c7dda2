"""The whole reward, from responses by way of a look-up segmenter to its weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import yaml
from jsonargparse import auto_cli
from torch import Tensor

from lightning_sal.inference.responses import gather
from lightning_sal.rewards import Format, Response, Reward, RewardTerm, Scores
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.tasks import TASKS


def _columns(image: Tensor, share: float) -> Tensor:
    """The left `share` of an image's columns."""
    return (torch.arange(image.shape[1]) < share * image.shape[1]).expand(image.shape[:2])


LOOK_UP = {
    "quarter": lambda image: _columns(image, 0.25),
    "half": lambda image: _columns(image, 0.5),
    "other half": lambda image: ~_columns(image, 0.5),
    "nothing": lambda image: _columns(image, 0.0),
    "[semantic] bright": lambda image: image[..., 0] > 128,
}


class LookUp:
    """Finds the mask of an expression in a table, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[Tensor], Sequence[Sequence[str]]]] = []

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        self.calls.append((images, prompts))
        return [
            torch.stack([LOOK_UP[name](image) for name in names]) if names else torch.zeros(0, *image.shape[:2]).bool()
            for image, names in zip(images, prompts, strict=True)
        ]


class Brevity(RewardTerm):
    """A term that the package knows nothing of: 1 for responses of at most `limit` characters."""

    name = "brevity"

    def __init__(self, limit: int = 100) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, responses: Sequence[Response]) -> Scores:
        short = [len(item.text) <= self.limit for item in responses]
        return Scores(torch.tensor(short), tuple(None if ok else "long" for ok in short))


class Broken(RewardTerm):
    name = "broken"

    def forward(self, responses: Sequence[Response]) -> Scores:
        return Scores(torch.full((len(responses),), torch.nan), (None,) * len(responses))


def group(task: str, key: str = "sample-7", widths: Sequence[int] = (8,), bright: Sequence[int] = (8,)) -> ImageGroup:
    """Images 4 pixels high whose left `bright` columns are white, with everything as ground truth."""
    images = tuple(torch.zeros(4, width, 3, dtype=torch.uint8) for width in widths)
    for image, columns in zip(images, bright, strict=True):
        image[:, :columns] = 255
    return ImageGroup(key, task, images, tuple(torch.ones(1, 4, width, dtype=torch.bool) for width in widths))


def say(task: str, *expressions: str) -> str:
    return TASKS[task].response("a thought", expressions)


def rollout_of(texts: Sequence[str]) -> Rollout:
    """Responses of one token each, of probability 1."""
    some = torch.zeros(len(texts), 1)
    return Rollout(tuple(texts), some.long(), some == 0, some, torch.zeros(len(texts), dtype=torch.bool))


def respond(groups: Sequence[ImageGroup], texts: Sequence[str], segmenter=None) -> list[Response]:
    return gather(groups, rollout_of(texts), segmenter or LookUp())


def judge(reward: Reward, groups: Sequence[ImageGroup], texts: Sequence[str], segmenter=None):
    return reward(respond(groups, texts, segmenter))


def test_a_mixed_step_by_hand():
    groups = [group("sod"), group("sod"), group("cosod", widths=(8, 16), bright=(4, 16)), group("sis"), group("sod")]
    texts = [
        say("sod", "quarter"),
        "<answer><rg>quarter</rg><rg>half</rg></answer>",
        say("cosod", "[semantic] bright"),
        say("sis", "half", "other half")[:-1],
        "I see a dog",
    ]
    segmenter = LookUp()
    responses = respond(groups, texts, segmenter)
    batch = Reward()(responses)

    # With everything as ground truth, S-measure is the share of the image that is predicted.
    assert batch.terms["correctness"].tolist() == pytest.approx([0.25, 0.5, (0.5 + 1.0) / 2, 0.0, 0.0])
    assert batch.terms["format"].tolist() == [1.0, 0.5, 1.0, 0.0, 0.0]
    assert batch.total.tolist() == pytest.approx([0.625, 0.5, 0.875, 0.0, 0.0])
    assert batch.total.dtype == torch.float32
    assert [reason is None for reason in batch.reasons["correctness"]] == [True, True, True, False, False]
    assert [reason is None for reason in batch.reasons["format"]] == [True, False, True, False, False]
    assert responses[1].answer.labels == ("quarter", "half")
    assert [[tuple(mask.shape) for mask in masks] for masks in (response.masks for response in responses)] == [
        [(1, 4, 8)],
        [(1, 4, 8)],
        [(1, 4, 8), (1, 4, 16)],
        [(0, 4, 8)],
        [(1, 4, 8)],
    ]
    assert not responses[4].masks[0].any()

    # One call for the step: every image, a CoSOD expression once on each of its images.
    (call,) = segmenter.calls
    assert len(call[0]) == 6
    assert [list(names) for names in call[1]] == [
        ["quarter"],
        ["quarter", "half"],
        ["[semantic] bright"],
        ["[semantic] bright"],
        [],
        [],
    ]


def test_instances_keep_a_mask_each():
    whole = group("sis")
    halves = torch.stack([LOOK_UP["other half"](whole.images[0]), LOOK_UP["half"](whole.images[0])])
    sample = ImageGroup(whole.key, "sis", whole.images, (halves,))
    responses = respond([sample], [say("sis", "half", "other half")])
    assert responses[0].masks[0].equal(halves.flip(0))
    assert Reward()(responses).total.tolist() == [1.0]


def test_responses_to_one_group_are_judged_apart():
    same = group("sod")
    batch = judge(Reward(), [same, same, same], [say("sod", name) for name in ("quarter", "half", "quarter")])
    assert batch.terms["correctness"].tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_an_empty_step_gives_empty_tensors():
    batch = judge(Reward(), [], [])
    assert batch.total.shape == (0,)
    assert {name: tuple(values.shape) for name, values in batch.terms.items()} == {"correctness": (0,), "format": (0,)}
    assert batch.reasons == {"correctness": (), "format": ()}


def test_weights_scale_the_terms():
    batch = judge(Reward(weights={"format": 3.0, "correctness": 2.0}), [group("sod")], [say("sod", "quarter")])
    assert batch.total.tolist() == pytest.approx([2 * 0.25 + 3 * 1.0])


def from_yaml(init_args: dict) -> Reward:
    """The reward that the command line builds from a YAML node."""

    def build(reward: Reward | None = None):
        return reward

    reward = auto_cli(build, args=[f"--reward={yaml.safe_dump(init_args)}"])
    assert isinstance(reward, Reward)
    return reward


def test_yaml_sets_weights_alone():
    weights = {"correctness": 0.9, "format": 0.1}
    reward = from_yaml({"weights": weights})
    assert judge(reward, [group("sod")], [say("sod", "half")]).total.tolist() == pytest.approx([0.45 + 0.1])


def test_yaml_adds_a_term_that_the_package_does_not_know():
    terms = [
        {"class_path": "lightning_sal.rewards.Format"},
        {"class_path": f"{__name__}.Brevity", "init_args": {"limit": 60}},
    ]
    reward = from_yaml({"terms": terms})
    texts = [say("sod", "half"), TASKS["sod"].response("a long thought " * 9, ["half"])]
    batch = judge(reward, [group("sod")] * 2, texts)
    assert batch.terms["brevity"].tolist() == [1.0, 0.0]
    assert batch.reasons["brevity"] == (None, "long")
    assert batch.total.tolist() == [1.0, 0.5]


def test_a_term_with_state_is_in_the_state_dict():
    term = Brevity()
    term.register_buffer("seen", torch.tensor([3.0]))
    assert Reward(terms=[term]).state_dict()["terms.brevity.seen"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("terms", "weights"),
    [
        ([], None),
        ([Brevity(), Brevity()], None),
        (None, {"correctness": 1.0}),
        (None, {"correctness": 0.5, "format": 0.5, "length": 0.1}),
        (None, {"correctness": 0.5, "format": float("nan")}),
    ],
)
def test_terms_and_weights_that_do_not_fit_are_refused(terms, weights):
    with pytest.raises(ValueError, match="reward") as error:
        Reward(terms=terms, weights=weights)
    assert len(str(error.value).splitlines()) == 1


def test_a_value_that_is_not_finite_is_refused_by_name():
    with pytest.raises(ValueError, match="sample-7: reward term 'broken' gave nan"):
        judge(Reward(terms=[Broken()]), [group("sod")], [say("sod", "half")])


def test_unequal_counts_are_refused():
    with pytest.raises(ValueError, match="2 groups and 1 responses"):
        respond([group("sod")] * 2, [say("sod", "half")])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "0 images and was asked about 1"),
        ([torch.zeros(1, 4, 8)], "sample-7: .*torch.float32"),
        ([torch.zeros(2, 4, 8, dtype=torch.bool)], r"sample-7: .*\(2, 4, 8\).*\(1, 4, 8\)"),
        ([torch.zeros(1, 8, 4, dtype=torch.bool)], r"sample-7: .*\(1, 8, 4\).*\(1, 4, 8\)"),
    ],
)
def test_a_segmenter_that_breaks_its_promise_is_named(masks, message):
    class Wrong:
        def segment(self, images, prompts):
            return masks

    with pytest.raises(ValueError, match=message):
        respond([group("sod")], [say("sod", "half")], Wrong())


def test_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'edges'"):
        respond([group("edges")], ["anything"])


class Remembering(RewardTerm):
    """1 / (1 + the mean length of what was learnt from so far)."""

    name = "remembering"
    bounds = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.total: torch.Tensor
        self.register_buffer("total", torch.zeros(()))

    def forward(self, responses: Sequence[Response]) -> Scores:
        lengths = torch.tensor([float(len(item.text)) for item in responses])
        return Scores((1 / (1 + self.total)).expand(len(responses)), (None,) * len(responses), observed=lengths)

    def commit(self, observed: Tensor) -> None:
        self.total += observed.sum()


def test_scoring_remembers_nothing_until_it_is_told_to():
    reward = Reward(terms=[Remembering(), Format()])
    responses = respond([group("sod")] * 2, [say("sod", "half")] * 2)
    first = reward(responses)
    assert reward(responses).total.equal(first.total)
    assert reward.remembers == ("remembering",)
    reward.commit({name: first.observed[name] for name in reward.remembers})
    assert reward.state_dict()["terms.remembering.total"] == 2 * len(say("sod", "half"))
    assert reward(responses).terms["remembering"][0] == pytest.approx(1 / (1 + 2 * len(say("sod", "half"))))


def test_without_a_need_for_masks_no_segmenter_is_asked():
    segmenter = LookUp()
    reward = Reward(terms=[Format()])
    (response,) = gather([group("sod")], rollout_of([say("sod", "half")]), segmenter, reward.needs)
    assert (segmenter.calls, response.masks) == ([], None)
    assert reward([response]).total.tolist() == [1.0]
    assert Reward().needs == {"masks"}


@pytest.mark.parametrize(
    ("terms", "weights", "complaint"),
    [
        ([Brevity(), Format()], None, "'brevity' states no bounds"),
        (None, {"correctness": 1.0, "format": 1.0}, r"lies in \[0, 2\]"),
        (None, {"correctness": 1.0, "format": -0.5}, r"lies in \[-0.5, 1\]"),
    ],
)
def test_a_total_that_may_leave_0_to_1_is_refused_where_it_stands_beside_a_confidence(terms, weights, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        Reward(terms, weights).require_probability("CGPO")
    assert len(str(error.value).splitlines()) == 1
    Reward(weights={"correctness": 0.9, "format": 0.1}).require_probability("CGPO")


def test_a_value_outside_of_its_bounds_is_refused_by_name():
    class Boastful(Brevity):
        bounds = (0.0, 0.5)

    with pytest.raises(ValueError, match=r"sample-7: reward term 'brevity' gave 1.0, outside of its bounds \[0, 0.5\]"):
        judge(Reward(terms=[Boastful()]), [group("sod")], [say("sod", "half")])


def test_what_an_evaluation_has_measured_is_not_measured_again(monkeypatch):
    from lightning_sal.evaluation.metrics import Evaluation

    responses = respond([group("sod")] * 2, [say("sod", "quarter"), "nothing"])
    anew = Reward()(responses)
    measured = Evaluation().measure(responses)
    monkeypatch.setattr("lightning_sal.metrics.functional.structure_measure", None)  # whoever calls it fails
    assert Reward()(measured).terms["correctness"].tolist() == pytest.approx(anew.terms["correctness"].tolist())


class Partly(RewardTerm):
    """Known values as they are given; None for one that is unknown."""

    bounds = (0.0, 1.0)

    def __init__(self, name, values):
        super().__init__()
        self.name, self.given = name, values

    def forward(self, responses):
        known = torch.tensor([value is not None for value in self.given])
        return Scores(torch.tensor([value or 0.0 for value in self.given]), (None,) * len(responses), known=known)


def test_an_unknown_value_favours_no_response_and_is_counted():
    """Two prompts of three responses: of the first one value is unknown, of the second all are."""
    first, second = group("sod"), group("sod")
    responses = [Response(each, "", TASKS["sod"].parse("")) for each in (first, second) for _ in range(3)]
    judge = Partly("judge", [1.0, None, 0.5, None, None, None])
    other = Partly("other", [0.2, 0.4, 0.6, 0.2, 0.4, 0.6])
    found = Reward([judge, other], {"judge": 0.75, "other": 0.25})(responses)
    mean = 0.75  # of 1 and 0.5
    expected = [0.75 * 1 + 0.05, 0.75 * mean + 0.1, 0.75 * 0.5 + 0.15, 0.2, 0.4, 0.6]
    assert found.total.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.known["judge"].tolist() == [True, False, True, False, False, False]
    assert found.of(1) == {"other": pytest.approx(0.4)}


def test_a_term_of_weight_0_is_measured_and_rewards_nothing():
    responses = [Response(group("sod"), "", TASKS["sod"].parse(""))] * 2
    found = Reward([Partly("seen", [0.3, 0.9]), Partly("paid", [0.5, 1.0])], {"seen": 0.0, "paid": 1.0})(responses)
    assert found.total.tolist() == [0.5, 1.0]
    assert found.terms["seen"].tolist() == pytest.approx([0.3, 0.9])
