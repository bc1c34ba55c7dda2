"""Maps of responses: one for each label and image, the same however many are read at once."""

import pytest
import torch

from lightning_sal.inference.maps import find_maps
from lightning_sal.inference.responses import MAPS, gather
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samples import Rollout
from lightning_sal.tasks import task_of
from lightning_sal.tiny.scenes import scene_group


@pytest.fixture(scope="module")
def policy():
    return FastPolicy(PolicyConfig("tiny")).requires_grad_(False)


def answered(policy, groups, texts):
    """A rollout that says these texts, equally many to each group."""
    tokens, mask = policy.encode_responses(texts)
    zeros = torch.zeros(tokens.shape)
    return Rollout(tuple(texts), tokens, mask, zeros, torch.zeros(len(texts), dtype=torch.bool)), policy.encode(groups)


def test_each_label_has_a_map_of_each_image_however_many_are_read_at_once(policy):
    groups = [scene_group(3, task, 1) for task in ("sod", "cosod", "sis")]
    texts = [text for group in groups for text in (group.response, "no format at all")]
    rollout, prompts = answered(policy, groups, texts)
    each = [group for group in groups for _ in range(2)]
    answers = [task_of(group).parse(text) for group, text in zip(each, texts, strict=True)]
    whole = find_maps(answers, each, rollout, policy, prompts)
    assert [len(maps) for maps in whole] == [count for answer in answers[::2] for count in (len(answer.labels), 0)]
    assert [len(maps[0]) for maps in whole[::2]] == [len(group.images) for group in groups]
    for size in (1, 4):
        parts = find_maps(answers, each, rollout, policy, prompts, micro_batch_size=size)
        for one, other in zip(whole, parts, strict=True):
            for ours, theirs in zip(one, other, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_text_that_is_not_that_of_its_tokens_is_refused(policy):
    group = scene_group(3, "sod", 1)
    rollout, prompts = answered(policy, [group], [group.response])
    other = Rollout((f"{group.response} ",), rollout.tokens, rollout.mask, rollout.logp, rollout.truncated)
    with pytest.raises(ValueError, match="is not that of its tokens"):
        gather([group], other, None, {MAPS}, policy=policy, prompts=prompts)
    with pytest.raises(ValueError, match="the policy that answered is not here"):
        gather([group], rollout, None, {MAPS})
