"""Estimated against allocated bytes: steps of a Qwen2.5-VL of 26 million parameters, every allocation counted."""

import gc
from copy import deepcopy
from dataclasses import replace
from itertools import accumulate
from typing import Any
from unittest import mock

import lightning as L
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.modules import CGPO, GRPO, SFT
from lightning_sal.policy import estimate as arithmetic
from lightning_sal.policy import fast, sampling
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.decoding import graphs, kept, merging
from lightning_sal.policy.estimate import ON_CPU, ON_GPU, Sizes, Step, estimate
from lightning_sal.policy.shape import on_meta, prompt_tokens, visual_tokens
from lightning_sal.rewards import Reward, RewardTerm, Scores
from lightning_sal.samples import Batch
from lightning_sal.tiny.policy import scratch_policy
from tests.modules.parts import ADAMW, StripeSegmenter, trainer

PROMPTS, TOKENS, SIDE = 2, 24, 336
SCENES = SceneGroups(0, {"sod": 1})
GROUPS = [SCENES[i] for i in range(2 * PROMPTS)]


@pytest.fixture(scope="module")
def small():
    """The small policy, whose images now have 144 visual tokens."""
    model, processor, instructions = scratch_policy()
    size = processor.image_processor.size
    processor.image_processor.size = type(size)(shortest_edge=SIDE**2, longest_edge=SIDE**2)
    return model, processor, instructions


@pytest.fixture(scope="module")
def config(small):
    """Sizes at which weights and activations outweigh all else."""
    words = small[0].config
    ends = {name: getattr(words.text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=16384,
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[8, 12, 12]),
            **ends,
        ),
        vision_config=dict(
            depth=4,
            hidden_size=256,
            intermediate_size=684,
            num_heads=4,
            out_hidden_size=384,
            fullatt_block_indexes=[1, 3],
        ),
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        vision_start_token_id=words.vision_start_token_id,
        vision_end_token_id=words.vision_end_token_id,
        tie_word_embeddings=False,
    )


class Recorder(L.Callback):
    """Records what the allocator gives and takes back during the steps."""

    def on_train_start(self, trainer, module):
        module.policy.suppressed[list(module.policy.eos_ids)] = True  # so that every response is as long as it may be
        # What earlier runs left in cycles, freed in these steps, would be taken off at sizes that the profiler remembers
        # of other blocks at the same addresses.
        gc.collect()
        self.record = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.record.start()

    def on_train_end(self, *_):
        self.record.stop()

    def peak(self) -> int:
        """Most bytes at once, of those that were allocated in the meantime."""
        events = self.record.profiler.kineto_results.events()
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        return max(accumulate(change for _, change in changes))


class Length(RewardTerm):
    name = "length"
    bounds = (0.0, 1.0)

    def forward(self, responses):
        return Scores(torch.tensor([len(item.text) / 10_000 for item in responses]), (None,) * len(responses))


def compared(
    small,
    sizes,
    algorithm,
    policy,
    folder,
    *,
    tokens=TOKENS,
    half=False,
    images=1,
    micro_batch=None,
    unequal=False,
    buffers=ON_CPU,
):
    """The estimate of a step, and the bytes that the policy and two such steps on it took at most."""
    task = "cosod" if images > 1 else "sod"
    groups = [
        replace(
            group,
            task=task,
            images=tuple(group.images[0].roll(k, 0) for k in range(images)),
            masks=None,
            response="0" * (tokens - 1 - (unequal and number % 2)),  # a digit is a token
        )
        for number, group in enumerate(GROUPS)
    ]
    tiny, processor, instructions = small
    model = Qwen2_5_VLForConditionalGeneration(deepcopy(sizes)).to(getattr(torch, policy.dtype)).eval()
    model.generation_config = tiny.generation_config
    recorder = Recorder()
    module = algorithm(
        policy=policy,
        segmenter=StripeSegmenter(),
        reward=Reward([Length()]),
        optimizer=ADAMW,
        max_new_tokens=tokens,
        micro_batch_size=micro_batch,
    )
    batches: Any = [Batch(tuple(groups[:PROMPTS])), Batch(tuple(groups[PROMPTS:]))]
    run = trainer(folder, max_steps=2, precision="bf16-mixed" if half else "32-true", callbacks=[recorder])
    with mock.patch("lightning_sal.policy.policy.load_model", return_value=(model, processor, instructions)):
        run.fit(module, DataLoader(batches, batch_size=None))
    held = sum(p.numel() * p.element_size() for p in module.policy.parameters())

    visual = visual_tokens(processor, *groups[0].images[0].shape[:2])
    length = prompt_tokens(processor, module.policy.messages(groups[0]), visual)
    assert module.policy.encode(groups[:1]).lengths == (length,)
    step = Step(
        prompts=PROMPTS,
        images=images,
        visual_tokens=visual,
        prompt_tokens=length,
        response_tokens=tokens,
        responses=getattr(module, "responses_per_prompt", 1),
        micro_batch=micro_batch,
        sampled=algorithm is not SFT,
        padded=unequal,
    )
    shape = Sizes.of(on_meta(deepcopy(sizes), policy), policy, autocast=half)
    found = estimate(shape, step, checkpointing=policy.gradient_checkpointing, buffers=buffers)
    return found, held + recorder.peak()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("algorithm", [SFT, CGPO, GRPO])
def test_the_estimate_is_within_15_percent_of_what_is_allocated(small, config, algorithm, checkpointing, tmp_path):
    policy = PolicyConfig("tiny-scratch", lora=LoRA(), gradient_checkpointing=checkpointing)
    found, peak = compared(small, config, algorithm, policy, tmp_path)
    assert found.peak == pytest.approx(peak, rel=0.15), found


@pytest.mark.parametrize(
    ("algorithm", "options"), [(SFT, {"unequal": True}), (CGPO, {"images": 3}), (GRPO, {"micro_batch": 4})]
)
def test_so_it_is_for_unequal_responses_several_images_and_micro_batches(small, config, algorithm, options, tmp_path):
    policy = PolicyConfig("tiny-scratch", lora=LoRA(), gradient_checkpointing=algorithm is GRPO)
    found, peak = compared(small, config, algorithm, policy, tmp_path, **options)
    assert found.peak == pytest.approx(peak, rel=0.15), found


def test_so_it_is_where_a_layer_computed_again_is_the_peak(small, config, tmp_path):
    """Long responses in a small vocabulary, so that logits are not."""
    policy = PolicyConfig("tiny-scratch", lora=LoRA(), gradient_checkpointing=True)
    sizes = deepcopy(config)
    sizes.text_config.vocab_size = 2048
    found, peak = compared(small, sizes, SFT, policy, tmp_path, tokens=300)
    assert found.largest == "backward"
    assert found.peak == pytest.approx(peak, rel=0.15), found


def test_so_it_is_under_autocast(small, config, tmp_path):
    """bfloat16 weights and float32 adapters, which share their inputs with the weights."""
    policy = PolicyConfig("tiny-scratch", lora=LoRA(), dtype="bfloat16")
    found, peak = compared(small, config, GRPO, policy, tmp_path, half=True)
    assert found.peak == pytest.approx(peak, rel=0.15), found


def test_so_it_is_where_the_language_model_itself_is_trained(small, config, tmp_path):
    found, peak = compared(small, config, SFT, PolicyConfig("tiny-scratch"), tmp_path)
    assert found.peak == pytest.approx(peak, rel=0.15), found


def test_so_it_is_where_buffers_stay_as_on_a_gpu(small, config, tmp_path, monkeypatch):
    """Lengths rounded up as there, and buffers kept for steps that were captured; capturing a step here does it."""
    monkeypatch.setitem(sampling._PACES, "cpu", sampling._ACCELERATOR)
    monkeypatch.setattr(kept, "CAPTURES", "cpu")
    monkeypatch.setattr(kept, "Graphs", lambda: graphs.Graphs(lambda step: step))
    policy = PolicyConfig("tiny-scratch", lora=LoRA(), gradient_checkpointing=True)
    found, peak = compared(small, config, GRPO, policy, tmp_path, buffers=ON_GPU)
    assert found.held["KV cache"] > 0
    assert found.peak == pytest.approx(peak, rel=0.15), found


def test_limits_are_those_of_the_policy():
    """The estimate states them anew, since it loads no model."""
    assert arithmetic.MOST_LOGITS == fast._MOST_LOGITS
    assert arithmetic.MERGED_PARAMETERS == merging.MOST_PARAMETERS
    for buffers, pace in ((ON_CPU, sampling._PACES["cpu"]), (ON_GPU, sampling._ACCELERATOR)):
        assert (buffers.prompt, buffers.response) == (pace.prompt, pace.response)
