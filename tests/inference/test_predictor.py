"""One way from photographs to predictions: by name, from a checkpoint, at once or as a stream."""

import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise, zip_longest

import pytest
import torch
from PIL import Image

from lightning_sal import Predictor
from lightning_sal.inference.predictor import load_policy
from lightning_sal.modules import SFT
from lightning_sal.policy import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samples import Batch
from lightning_sal.tasks import task_of
from lightning_sal.tiny.scenes import scene_group

TRAINED = PolicyConfig("tiny-early", lora=LoRA(rank=2), gradient_checkpointing=True, feature_cache="nowhere")


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(max_new_tokens=64)


@pytest.fixture(scope="module")
def groups():
    return [scene_group(5, task, index) for index, task in enumerate(("sod", "sis", "cosod"))]


@pytest.fixture(scope="module")
def trained():
    """A policy with adapters that are not those it was given."""
    policy = FastPolicy(replace(TRAINED, feature_cache=None, gradient_checkpointing=False))
    torch.manual_seed(0)
    for name, parameter in policy.net.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.02)
    return policy.eval()


def weights_of(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}


def log_probs(policy, groups):
    ids, mask = policy.encode_responses([group.response for group in groups])
    with torch.no_grad():
        return policy.eval().score(policy.encode(groups), ids, mask)


def collect(stream):
    texts = []
    while True:
        try:
            texts.append(next(stream))
        except StopIteration as end:
            return texts, end.value


def test_a_stream_grows_into_the_prediction(predictor, groups):
    for group in groups:
        (whole,) = predictor.predict([group])
        texts, streamed = collect(predictor.stream(group))
        assert texts[-1] == whole.text == streamed.text
        assert len(texts) > 20
        assert all(later.startswith(earlier) and later != earlier for earlier, later in pairwise(texts))
        assert (streamed.expressions, streamed.confidence) == (whole.expressions, whole.confidence)
        assert all(torch.equal(a, b) for a, b in zip(streamed.masks, whole.masks, strict=True))


def test_two_streams_and_other_work_do_not_disturb_each_other(predictor, trained, groups, monkeypatch):
    monkeypatch.setattr(
        "lightning_sal.policy.decoding.decoder.can_merge", lambda *_: False
    )  # which would work on a copy
    policy = Predictor(trained, predictor.segmenter, 24)
    alone = [collect(policy.stream(group))[0] for group in groups[:2]]
    before = log_probs(trained, groups[:1])
    started = policy.stream(groups[2])
    next(started)
    pairs = []
    for pair in zip_longest(*(policy.stream(group) for group in groups[:2])):
        pairs.append(pair)
        assert torch.equal(log_probs(trained, groups[:1]), before)
    started.close()
    assert [[text for text in texts if text is not None] for texts in zip(*pairs, strict=True)] == alone
    assert torch.equal(log_probs(trained, groups[:1]), before)


def test_the_masks_of_a_task_are_composed_of_those_of_its_expressions(predictor, groups):
    for group, prediction in zip(groups, predictor.predict(groups), strict=True):
        assert len(prediction.prompt_masks) == len(group.images)
        for image, each, masks in zip(group.images, prediction.prompt_masks, prediction.masks, strict=True):
            assert each.shape == (len(prediction.expressions), *image.shape[:2])
            found = predictor.segmenter.segment([image], [prediction.expressions])[0]
            assert torch.equal(each, found)
            assert torch.equal(masks, each if task_of(group).masks_per_image is None else each.any(0, keepdim=True))


def test_the_module_predicts_the_same(predictor, groups):
    module = SFT(PolicyConfig(), max_new_tokens=64)
    module.configure_model()
    for ours, theirs in zip(module.predict_step(Batch(tuple(groups)), 0), predictor.predict(groups), strict=True):
        assert (ours.text, ours.confidence) == (theirs.text, theirs.confidence)
        assert all(torch.equal(a, b) for a, b in zip(ours.masks, theirs.masks, strict=True))


def test_files_are_answered(predictor, groups, tmp_path):
    files = []
    for number, image in enumerate(groups[2].images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image.numpy()).save(files[-1])
    assert predictor(files, task="cosod").text == predictor.predict(groups[2:])[0].text
    assert predictor(str(files[0])).group.task == "sod"
    with pytest.raises(ValueError, match="sod needs one image, and 3 given"):
        predictor(files)


def test_a_checkpoint_and_a_folder_of_adapters_are_the_policy_that_was_trained(trained, groups, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    state = {f"policy.{name}": p for name, p in weights_of(trained).items()}
    torch.save({"state_dict": state, "policy": asdict(TRAINED), "trained": list(state)}, checkpoint)
    trained.net.save_pretrained(tmp_path / "adapter")
    expected = log_probs(trained, groups)
    assert not torch.allclose(expected, log_probs(load_policy("tiny-early", {}), groups), atol=1e-2)
    loaded = load_policy(str(checkpoint), {})
    assert torch.equal(log_probs(loaded, groups), expected)
    assert loaded.config.feature_cache is None  # the folder was of the machine that trained
    merged = load_policy(str(tmp_path / "adapter"), {})
    torch.testing.assert_close(log_probs(merged, groups), expected, atol=1e-4, rtol=1e-4)
    assert load_policy(str(checkpoint), {"max_pixels": 7000}).config.max_pixels == 7000


def test_weights_that_do_not_fit_or_cannot_be_trusted_are_refused(trained, tmp_path):
    state = {f"policy.{name}": p for name, p in weights_of(trained).items()}
    first = min(state)
    faulty = {
        "missing": {name: p for name, p in state.items() if name != first},
        "extra": {**state, "policy.net.more": torch.zeros(1)},
        "shape": {**state, first: torch.zeros(1)},
    }
    for name, weights in faulty.items():
        path = tmp_path / f"{name}.ckpt"
        torch.save({"state_dict": weights, "policy": asdict(TRAINED)}, path)
        with pytest.raises(ValueError, match=name if name == "missing" else "first: |base") as error:
            load_policy(str(path), {})
        assert "\n" not in str(error.value)
    code = tmp_path / "code.ckpt"
    torch.save({"state_dict": state, "policy": print}, code)
    old = tmp_path / "old.ckpt"
    torch.save({"state_dict": state}, old)
    for path, message in ((code, "holds more than tensors and plain values"), (old, "lightning-sal export --config")):
        with pytest.raises(ValueError, match=message):
            load_policy(str(path), {})


def test_the_package_is_light_to_import_and_the_predictor_needs_no_lightning():
    code = (
        "import sys, lightning_sal; assert 'torch' not in sys.modules; lightning_sal.Predictor; "
        "assert not {'lightning', 'torchmetrics', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_answer_out_of_form_is_segmented_where_it_is_read_leniently(predictor, groups, monkeypatch):
    monkeypatch.setattr(FastPolicy, "decode", lambda _, tokens, mask: ("The red circle.",) * len(tokens))
    (strict,) = predictor.predict(groups[:1])
    (lenient,) = replace(predictor, reading="lenient").predict(groups[:1])
    assert strict.expressions == ()
    assert not strict.masks[0].any()
    assert lenient.expressions == ("The red circle",)
    assert len(lenient.prompt_masks) == 1
    assert strict.reason == lenient.reason is not None
