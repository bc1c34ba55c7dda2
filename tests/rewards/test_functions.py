"""Plain functions as rewards, by hand and from YAML."""

import pytest
import torch
import yaml

from lightning_sal.inference.responses import Response
from lightning_sal.rewards import Format, FunctionTerm, Reward, RewardFunction
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task
from tests.rewards.test_total import auto_cli

TASK = get_task("sod")
GROUP = ImageGroup("key", "sod", (torch.zeros(2, 2, 3, dtype=torch.uint8),))


def halved(response: Response) -> float:
    return len(response.answer.labels) / 2


def unsure(response: Response) -> float | None:
    return 0.5 if response.answer.labels else None


def seen(response: Response) -> float:
    return float(response.masks is not None)


seen.needs = frozenset({"masks"})


def responses(*counts: int) -> list[Response]:
    """Of so many expressions each."""
    texts = [TASK.response("thought", ["a"] * count) if count else "nothing" for count in counts]
    return [Response(GROUP, text, TASK.parse(text)) for text in texts]


def test_a_function_beside_a_term_by_hand():
    reward = Reward([Format(), halved], {"format": 0.25, "halved": 0.75})
    batch = reward(responses(1, 2, 0))
    assert batch.terms["halved"].tolist() == [0.5, 1, 0]
    assert batch.total.tolist() == [0.25 + 0.375, 1, 0]
    reward.require_probability("CGPO")


def test_no_value_is_told_from_0():
    batch = Reward([unsure])(responses(1, 0))
    assert batch.known["unsure"].tolist() == [True, False]
    assert batch.reasons["unsure"] == (None, "unsure gave no value")
    assert batch.total.tolist() == [0.5, 0.5]  # the mean of the other response to the same prompt stands in


def test_a_function_says_what_it_needs():
    assert Reward([seen]).needs == {"masks"}
    assert not Reward([halved]).needs


@pytest.mark.parametrize(("value", "message"), [([1, 2], r"gave \[1, 2\]: a number"), (1.5, "outside of its bounds")])
def test_what_is_no_reward_is_refused_by_name(value, message):
    def wrong(response):
        return value

    with pytest.raises(ValueError, match=f"wrong.*{message}"):
        Reward([wrong])(responses(1))


def test_a_function_without_a_name_is_refused():
    with pytest.raises(ValueError, match="has no name"):
        FunctionTerm(lambda response: 1.0)


@pytest.mark.parametrize("given", [f"{__name__}.halved", yaml.safe_dump({"terms": [f"{__name__}.halved"]})])
def test_yaml_names_a_function(given):
    def build(reward: Reward | RewardFunction | None = None):
        return reward

    built = auto_cli(build, args=[f"--reward={given}"])
    reward = built if isinstance(built, Reward) else Reward([built])
    assert reward(responses(1)).total.tolist() == [0.5]
