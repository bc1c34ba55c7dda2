"""Operations of each phase of a step, against torch's own count of those that it does; seconds by hand."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.estimate import Sizes, Step
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.gpus import GPU, GPUS, REACHED_ARITHMETIC, REACHED_BANDWIDTH
from lightning_sal.policy.seconds import Matrices, Work, work
from lightning_sal.policy.shape import on_meta
from lightning_sal.samples import ImageGroup
from lightning_sal.tiny.policy import scratch_policy

PROMPTS, RESPONSES, TOKENS, SIDE = 2, 3, 6, 224  # two windows a side
VISUAL = 64


def policy_of(monkeypatch, config):
    """A policy of random weights, its prompts, and what the arithmetic is given of it."""
    tiny, processor, instructions = scratch_policy()
    size = processor.image_processor.size
    processor.image_processor.size = type(size)(shortest_edge=SIDE**2, longest_edge=SIDE**2)
    sizes = deepcopy(tiny.config)
    model = Qwen2_5_VLForConditionalGeneration(deepcopy(sizes)).to(getattr(torch, config.dtype)).eval()
    model.generation_config = tiny.generation_config
    monkeypatch.setattr("lightning_sal.policy.policy.load_model", lambda *_, **__: (model, processor, instructions))
    policy = FastPolicy(config)
    policy.suppressed[list(policy.eos_ids)] = True
    meta = on_meta(sizes, config)
    return policy, Matrices.of(meta, config), Sizes.of(meta, config, autocast=False)


def images(count):
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=draw) for _ in range(count)]


def in_place(_, one, other, *__, **___):
    """The count of addmm_, which torch's own leaves out."""
    return 2 * one[0] * one[1] * other[1]


def counted(run):
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        result = run()
    return result, counter.get_total_flops()


@pytest.mark.parametrize(
    ("lora", "checkpointing", "responses"),
    [(LoRA(rank=4), False, RESPONSES), (LoRA(rank=4), True, 1), (None, False, 1), (None, True, RESPONSES)],
)
def test_operations_are_those_that_torch_counts(monkeypatch, lora, checkpointing, responses):
    config = PolicyConfig("tiny-scratch", lora=lora, dtype="bfloat16", gradient_checkpointing=checkpointing)
    policy, matrices, sizes = policy_of(monkeypatch, config)
    groups = [ImageGroup(str(n), "sod", (image,)) for n, image in enumerate(images(PROMPTS))]
    prompts, encoding = counted(lambda: policy.encode(groups))
    length = prompts.lengths[0]
    step = Step(PROMPTS, 1, VISUAL, length, TOKENS, responses, padded=False)
    found = work(matrices, sizes, step, checkpointing=checkpointing)
    assert found["encode images"].operations == encoding

    _, reading = counted(lambda: policy.sample(prompts, 1, responses=responses))
    rollout, sampling = counted(lambda: policy.sample(prompts, TOKENS, responses=responses))
    assert rollout.mask.all()
    assert found["read prompts"].operations == pytest.approx(reading, abs=2 * PROMPTS * matrices.head * (responses - 1))
    hidden = 4 * sizes.attention * sizes.layers * PROMPTS * responses * sum(range(TOKENS)) * (responses - 1)
    assert 0 <= sampling - reading - found["write responses"].operations <= hidden  # scores behind a mask

    logp, scoring = counted(lambda: policy.score(prompts, rollout.tokens, rollout.mask))
    assert found["score"].operations == pytest.approx(scoring, rel=1e-12)
    _, backward = counted(lambda: logp.sum().backward())
    # Words need no gradient unless they are trained or layers are checkpointed: none goes back there from the first layer.
    width = policy.backbone.width
    entry = width * (sizes.attention + 2 * sizes.keys) + 3 * width * sizes.rank
    stops = lora is not None and not checkpointing
    more = 2 * PROMPTS * (length + responses * TOKENS) * entry * stops
    assert found["backward"].operations == pytest.approx(backward + more, rel=1e-12)


def test_micro_batches_read_their_prompts_anew(monkeypatch):
    _, matrices, sizes = policy_of(monkeypatch, PolicyConfig("tiny-scratch", lora=LoRA(rank=4)))
    whole = Step(PROMPTS, 1, VISUAL, 80, TOKENS, 4)
    parts = replace(whole, micro_batch=2)
    one, other = (work(matrices, sizes, step, checkpointing=False)["score"].operations for step in (whole, parts))
    # Half of the responses of a prompt at a time: each prompt goes through the layers twice, all but its last token through
    # keys and values alone in the last of them.
    everything, last = matrices.layers + matrices.adapters, matrices.keys_values + matrices.adapters_keys_values
    products = 2 * PROMPTS * (80 * everything - 79 * (everything - last) / sizes.layers)
    pairs = 4 * sizes.attention * PROMPTS * ((sizes.layers - 1) * 80**2 + 80)
    assert other - one == pytest.approx(products + pairs)


def test_the_slower_of_arithmetic_and_memory_decides():
    gpu = GPU(tflops=100, bandwidth=2.0)
    assert Work(4e13, 0).seconds(gpu) == pytest.approx(4e13 / (REACHED_ARITHMETIC * 1e14))
    assert Work(4e13, 7e12).seconds(gpu) == pytest.approx(7e12 / (REACHED_BANDWIDTH * 2e12))
    assert all(each.tflops > 0 and each.bandwidth > 0 and each.memory for each in GPUS.values())


def test_decoding_a_7b_takes_its_weights_over_the_bandwidth(tmp_path):
    """14.1 GB a token: 7.6 billion parameters but for the table of words, two bytes each, and 61 million of adapters."""
    from transformers import AutoConfig

    from tests.policy.test_real_size import PUBLISHED

    config = PolicyConfig(dtype="bfloat16", lora=LoRA(rank=16))
    meta = on_meta(AutoConfig.for_model(**PUBLISHED), config)
    matrices, sizes = Matrices.of(meta, config), Sizes.of(meta, config, autocast=True)
    step = Step(8, 1, 1000, 1050, 257, 1)
    found = work(matrices, sizes, step, checkpointing=True)["write responses"]
    # Of rank 16, of layers with one input in one: 3584 -> 4608, 3584 -> 3584, 3584 -> 37888, 18944 -> 3584.
    adapters = 16 * (3 * 8192 + 7168 + 2 * 41472 + 22528)
    keys = 2 * 28 * 512 * 2 * 8 * (1050 + 257 / 2)
    assert found.bytes / 256 == pytest.approx(2 * (7_615_616_512 - 152064 * 3584 + 28 * adapters) + keys, rel=1e-3)
    assert 1000 * found.seconds(GPUS["H200"]) / 256 == pytest.approx(14.80 / 3.36, rel=1e-3)  # GB over 70 % of 4.8 TB/s
