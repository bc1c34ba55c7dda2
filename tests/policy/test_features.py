"""The cache of image features: what is kept is what would be computed, and whatever changes it is another entry."""

import errno
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from lightning_sal.callbacks import InterleavedSFT
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.chat import chat_text
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.features import FeatureCache, ImageFeatures, vision_fingerprint
from tests.distributed.processes import process
from tests.modules.parts import POLICY, cgpo, scenes, trained, trainer

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=6)
GROUPS = [SCENES[i] for i in range(6)]
IMAGES = sum(len(group.images) for group in GROUPS)


@pytest.fixture(scope="module")
def plain():
    return watched(FastPolicy(PolicyConfig("tiny-scratch")))


@pytest.fixture(scope="module")
def keeping():
    return watched(FastPolicy(PolicyConfig("tiny-scratch")))


@pytest.fixture
def cached(keeping, tmp_path):
    """The same policy with a cache that is empty."""
    keeping.config = keeping._encoder.config = PolicyConfig("tiny-scratch", feature_cache=str(tmp_path / "features"))
    keeping.runs.clear()
    return keeping


def watched(policy):
    """`policy.runs` gets the number of images of each forward pass of the vision tower."""
    policy.runs = []
    policy.model.model.visual.register_forward_pre_hook(
        lambda module, args, kwargs: policy.runs.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    return policy


class StepLog(L.Callback):
    """Appends responses, rewards and losses of RL steps to a list."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, *_):
        if (record := pl_module.record) is not None:
            loss = float(trainer.callback_metrics["train/loss"])
            self.steps.append((record.rollout.texts, record.rollout.logp.tolist(), record.rewards.total.tolist(), loss))


def files(folder):
    return sorted((folder / "features").iterdir())


def same(one, two):
    for name in ("ids", "mask", "positions", "following"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert one.lengths == two.lengths
    for ours, theirs in zip(one.visual, two.visual, strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_kept_is_bitwise_what_was_computed_and_serves_other_processes(plain, cached, tmp_path):
    expected = plain.encode(GROUPS)
    for _ in range(2):
        same(cached.encode(GROUPS), expected)
    assert cached.runs == [IMAGES]
    other = watched(FastPolicy(cached.config))
    same(other.encode(GROUPS[::-1]), plain.encode(GROUPS[::-1]))
    assert other.runs == []
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"] * IMAGES


def test_only_new_images_go_through_the_tower(plain, cached):
    cached.encode(GROUPS[1:5:2])
    cached.runs.clear()
    same(cached.encode(GROUPS), plain.encode(GROUPS))
    assert cached.runs == [IMAGES - sum(len(group.images) for group in GROUPS[1:5:2])]


def test_prompts_are_those_of_the_processor(plain):
    prompts = plain.encode(GROUPS)
    expected = plain.processor(
        text=[chat_text(plain.processor, plain.messages(group)) for group in GROUPS],
        images=[image.permute(2, 0, 1) for group in GROUPS for image in group.images],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    assert torch.equal(prompts.ids, expected["input_ids"])
    assert torch.equal(prompts.mask, expected["attention_mask"].bool())
    with torch.no_grad():
        output = plain.model.model.get_image_features(expected["pixel_values"], expected["image_grid_thw"])
    assert torch.equal(torch.cat(prompts.visual), torch.cat(output.pooler_output))


def test_features_do_not_depend_on_the_other_images():
    """Images of several windows and sizes; those of the small policy are otherwise all of one."""
    policy = FastPolicy(PolicyConfig("tiny", min_pixels=3136, max_pixels=60_000))
    sizes = ((333, 97), (112, 112), (30, 260), (112, 112))
    images = [torch.randint(256, (*size, 3), dtype=torch.uint8) for size in sizes]
    groups = [replace(GROUPS[0], images=(image,), masks=None) for image in images]
    together = policy.encode(groups).visual
    for group, features in zip(groups, together, strict=True):
        torch.testing.assert_close(policy.encode([group]).visual[0], features, atol=1e-5, rtol=0)
    assert len({len(features) for features in together}) == 3


def test_an_image_that_comes_twice_is_encoded_once(plain, cached, tmp_path):
    """Of different tasks; with the cache by content, without it where it is the same tensor."""
    sod = next(group for group in GROUPS if group.task == "sod")
    cosod = next(group for group in GROUPS if group.task == "cosod")
    other = replace(cosod, images=(cosod.images[0], sod.images[0].clone(), cosod.images[0]), masks=None)
    one, three = cached.encode([sod, other]).visual
    assert cached.runs == [2]
    assert len(files(tmp_path)) == 2
    first, second, third = three.chunk(3)
    assert torch.equal(second, one)
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
    plain.runs.clear()
    torch.testing.assert_close(plain.encode([sod, other]).visual, (one, three), atol=1e-5, rtol=0)
    assert plain.runs == [3]


def test_gradients_of_a_trained_tower_count_every_place_of_an_image():
    policy = FastPolicy(PolicyConfig("tiny-scratch", train_vision=True))
    image = GROUPS[0].images[0]

    def gradient(*images):
        policy.zero_grad()
        groups = [replace(GROUPS[0], images=(image,), masks=None) for image in images]
        sum(weight * f.sin().sum() for weight, f in zip((1, 2), policy.encode(groups).visual, strict=True)).backward()
        return policy.model.model.visual.patch_embed.proj.weight.grad.clone()

    once, twice = gradient(image, image), gradient(image, image.clone())
    torch.testing.assert_close(once, twice, rtol=1e-4, atol=1e-5 * float(twice.abs().max()))


def test_other_sizes_weights_and_precisions_miss_and_leave_the_files_alone(tmp_path):
    def made(**options):
        config = {"model": "tiny", "feature_cache": str(tmp_path / "features"), **options}
        return watched(FastPolicy(PolicyConfig(**config)))

    group = GROUPS[:1]
    made().encode(group)
    kept = files(tmp_path)
    before = [path.read_bytes() for path in kept]

    def misses(policy, **autocast):
        with torch.autocast("cpu", **{"enabled": False, **autocast}):
            policy.encode(group)
        return bool(policy.runs)

    assert not misses(made(lora=POLICY.lora))
    nudged = made()
    with torch.no_grad():
        nudged.model.model.visual.merger.mlp[2].bias[0] += 1e-6
    assert misses(nudged)
    assert misses(made(min_pixels=784, max_pixels=6272))
    assert misses(made(attention="eager"))
    assert misses(made(dtype="bfloat16"))
    assert misses(made(), enabled=True, dtype=torch.bfloat16)
    assert misses(made(model="tiny-scratch"))
    assert len(files(tmp_path)) == 7
    assert [path.read_bytes() for path in kept] == before


def test_a_key_tells_pixels_and_size_apart(tmp_path):
    image = torch.arange(24, dtype=torch.uint8).view(2, 4, 3)
    cache = FeatureCache(tmp_path, "a")
    assert cache.key(image) == cache.key(image.clone())
    assert cache.key(image) == cache.key(image.permute(2, 0, 1).contiguous().permute(1, 2, 0))
    other = image.clone()
    other[1, 3, 2] += 1
    keys = [cache.key(image), cache.key(other), cache.key(image.view(4, 2, 3)), FeatureCache(tmp_path, "b").key(image)]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_come_back_with_every_bit(tmp_path, dtype):
    features = torch.tensor([[0.0, -0.0, 1e-30], [torch.inf, torch.nan, 1 / 3]]).to(dtype)
    cache = FeatureCache(tmp_path, "")
    cache.write("k", ImageFeatures(features.T, torch.tensor([1, 4, 2])))
    found = cache.read("k")
    integer = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]
    assert found.features.dtype == dtype
    assert torch.equal(found.features.view(integer), features.T.contiguous().view(integer))
    assert found.grid.tolist() == [1, 4, 2]


def test_a_file_that_another_node_replaces_at_this_moment_is_computed_anew(tmp_path, monkeypatch):
    """A network file system then says ESTALE; of other faults of the disk the user hears."""
    cache = FeatureCache(tmp_path, "")
    cache.write("k", ImageFeatures(torch.ones(4, 2), torch.tensor([1, 4, 4])))

    def fails(code):
        def read_bytes(path):
            raise OSError(code, os.strerror(code), str(path))

        monkeypatch.setattr(Path, "read_bytes", read_bytes)

    fails(errno.ESTALE)
    assert cache.read("k") is None
    fails(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        cache.read("k")


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "foreign"])
def test_a_damaged_file_is_named_and_made_anew(cached, tmp_path, damage):
    expected = cached.encode(GROUPS[:1])
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    path.write_bytes({"cut": whole[:-100], "empty": b"", "bit": bytes(flipped), "foreign": b"no features" * 9}[damage])
    with pytest.warns(UserWarning, match=rf"{path.name}: damaged \(.*\): its image is encoded anew"):
        same(cached.encode(GROUPS[:1]), expected)
    assert path.read_bytes() == whole
    assert files(tmp_path) == [path]


def write_and_be_killed(folder):
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    FeatureCache(folder, "").write("k", ImageFeatures(torch.ones(4, 2), torch.ones(3)))


def test_what_a_killed_process_left_is_not_read(tmp_path):
    """Killed with its file written and not yet in place."""
    child = process(write_and_be_killed, str(tmp_path))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    cache = FeatureCache(tmp_path, "")
    assert cache.read("k") is None
    cache.write("k", ImageFeatures(torch.zeros(4, 2), torch.ones(3)))
    assert torch.equal(cache.read("k").features, torch.zeros(4, 2))


def test_a_write_that_fails_leaves_nothing(tmp_path):
    cache = FeatureCache(tmp_path, "")
    (tmp_path / "k.safetensors").mkdir()
    with pytest.raises(OSError, match="safetensors"):
        cache.write("k", ImageFeatures(torch.ones(4, 2), torch.ones(3)))
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]


def test_writers_and_readers_at_once_see_whole_files(tmp_path):
    cache, features = FeatureCache(tmp_path, ""), torch.randn(500, 64)

    def work(number):
        cache.write("k", ImageFeatures(features, torch.ones(3)))
        return torch.equal(cache.read("k").features, features)

    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("error")
        assert all(pool.map(work, range(200)))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_tower_that_is_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"feature_cache .* drop it, or drop train_vision"):
        PolicyConfig("tiny-scratch", train_vision=True, feature_cache=str(tmp_path))


def test_shards_are_refused():
    tower = nn.Linear(2, 2)
    tower.weight = nn.Parameter(torch.empty(0))
    with pytest.raises(ValueError, match="not shards"):
        vision_fingerprint(tower)


def test_training_is_the_same_with_and_without(tmp_path):
    """Two RL steps and one of SFT without a cache, with an empty one and with a full one: same responses, same weights."""
    results = []
    for folder, passes in ((None, 3), ("features", 3), ("features", 0)):
        module = cgpo(policy=replace(POLICY, feature_cache=folder and str(tmp_path / folder)))
        module.configure_model()
        watched(module.policy)
        steps = []
        callbacks = [InterleavedSFT(rl_steps=2, sft_steps=1), StepLog(steps)]
        trainer(tmp_path, max_steps=3, callbacks=callbacks).fit(module, datamodule=scenes())
        assert len(module.policy.runs) == passes
        results.append((trained(module), steps))
    weights, steps = results[0]
    assert len(steps) == 2
    assert all(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    for others, theirs in results[1:]:
        assert theirs == steps
        assert all(torch.equal(weight, weights[name]) for name, weight in others.items())
