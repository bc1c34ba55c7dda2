"""SAM 3 against transformers' own processor and forward pass, at small size."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from lightning_sal.samples import InstancePhrase, VisualPrompt
from lightning_sal.segmenters import SAM3, SegmenterByPrompt
from lightning_sal.segmenters.named import load_segmenter
from lightning_sal.segmenters.sam3_weights import load_sam3
from tests.segmenters.sam3_parts import save, tiny_config, tiny_model, tiny_processor

SIZES = [(40, 56), (33, 21), (40, 56), (80, 64)]
ONE = InstancePhrase
PROMPTS = [["a dog", ONE("red cat")], ["[semantic] sheep", ONE("a dog"), "a dog"], [], ["the big old tree on the hill"]]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in SIZES]


@torch.no_grad()
def reference(model, processor, image, phrase):
    """Outputs of transformers for one image and one phrase."""
    inputs = processor(images=image.numpy(), text=phrase, return_tensors="pt")
    return model(
        pixel_values=inputs.pixel_values.to(model.dtype),
        input_ids=inputs.input_ids,
        attention_mask=inputs.attention_mask,
    )


def expected(processor, outputs, size, prompt, region, threshold, pixel=0.5):
    """The mask of transformers' post-processing, before presence is looked at."""
    if isinstance(prompt, InstancePhrase) or region == "instances":
        least = threshold if not isinstance(prompt, InstancePhrase) else -1
        (found,) = processor.post_process_instance_segmentation(outputs, least, pixel, [size])
        if isinstance(prompt, InstancePhrase):
            return found["masks"][found["scores"].argmax()].bool()
        return found["masks"].bool().any(0) if len(found["masks"]) else torch.zeros(size, dtype=torch.bool)
    return processor.post_process_semantic_segmentation(outputs, [size], pixel)[0].bool()


@pytest.mark.parametrize("max_batch", [1, 3, 8])
@pytest.mark.parametrize("region", ["semantic", "instances"])
def test_masks_and_scores_are_those_of_transformers_one_by_one(model, processor, region, max_batch):
    """Of images of several sizes with phrases of several lengths, to the pixel: but where sums of another order decide."""
    segmenter = SAM3(model, processor, region, presence_threshold=0, score_threshold=0.3, max_batch=max_batch)
    given = images()
    found = segmenter.segment_with_presence(given, PROMPTS)
    kinds = set()
    for image, of_image, (masks, presence) in zip(given, PROMPTS, found, strict=True):
        size = tuple(image.shape[:2])
        assert masks.shape == (len(of_image), *size)
        assert masks.dtype == torch.bool
        assert presence.shape == (len(of_image),)
        for prompt, mask, score in zip(of_image, masks, presence, strict=True):
            outputs = reference(model, processor, image, prompt.removeprefix("[semantic] "))
            torch.testing.assert_close(score, outputs.presence_logits.sigmoid()[0, 0], atol=1e-5, rtol=0)
            small, exact, large = (
                expected(processor, outputs, size, prompt, region, 0.3, pixel)
                for pixel in (0.5 + 1e-5, 0.5, 0.5 - 1e-5)
            )
            assert (small <= mask).all()
            assert (mask <= large).all()
            if max_batch == 1:
                assert (mask == exact).all()
            kinds.add((mask.any().item(), mask.all().item()))
    assert (True, False) in kinds  # masks that say something
    assert torch.cat([f.presence for f in found]).unique().numel() > 3


def test_what_is_less_sure_than_the_presence_threshold_is_not_found(model, processor):
    given = images()
    surest = SAM3(model, processor, presence_threshold=0).segment_with_presence(given, PROMPTS)
    scores = torch.cat([found.presence for found in surest])
    middle = scores.median().item()
    found = SAM3(model, processor, presence_threshold=middle).segment_with_presence(given, PROMPTS)
    for all_masks, (masks, presence) in zip(surest, found, strict=True):
        assert torch.equal(presence, all_masks.presence)  # which is told of what is not found too
        for every, mask, score in zip(all_masks.masks, masks, presence, strict=True):
            assert torch.equal(mask, every if score >= middle else torch.zeros_like(every))
    assert 0 < (scores >= middle).sum() < len(scores)


def test_images_and_phrases_are_encoded_once(model, processor, monkeypatch):
    """Whatever the number of responses that ask about an image, in whatever words."""
    seen = {"images": 0, "phrases": 0}
    encode_images, encode_text = model.get_vision_features, model.get_text_features

    def count_images(pixel_values):
        seen["images"] += len(pixel_values)
        return encode_images(pixel_values=pixel_values)

    def count_phrases(input_ids, attention_mask):
        seen["phrases"] += len(input_ids)
        return encode_text(input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(model, "get_vision_features", count_images)
    monkeypatch.setattr(model, "get_text_features", count_phrases)
    first, second, third, _ = images()
    prompts = [["a dog"], ["[semantic] a dog", "a cat"], [ONE("a dog"), "a dog"], []]
    found = SAM3(model, processor, presence_threshold=0, max_batch=2).segment([first, second, first, third], prompts)
    assert seen == {"images": 2, "phrases": 2}
    assert torch.equal(found[0][0], found[2][1])
    assert not torch.equal(found[2][0], found[2][1])  # one dog, and all


def test_the_mark_of_a_category_is_no_word(model, processor):
    image = images()[0]
    marked, bare = SAM3(model, processor).segment([image, image.clone()], [["[semantic] dog"], ["dog"]])
    assert torch.equal(marked, bare)


def test_a_phrase_that_is_too_long_is_told_of(model, processor):
    """32 tokens of a letter, with the start and the end of the text: 30 letters are read."""
    segmenter, image = SAM3(model, processor), images()[0]
    longer = ["a" * 31 + "b" * n for n in range(1, 13)]
    with pytest.warns(UserWarning, match="its end is cut off") as told:
        found = segmenter.segment_with_presence([image], [[longer[0]]])
    assert [str(each.message) for each in told] == [
        f"SAM 3 reads 32 tokens and {longer[0]!r} has 34: its end is cut off (phrase 1 that is; told of 1, 10, 100, ...)"
    ]
    other = segmenter.segment_with_presence([image], [["a" * 31]])  # cut off at the same place
    assert torch.equal(found[0].presence, other[0].presence)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.segment([image], [["a" * 30]])
    with pytest.warns(UserWarning, match="phrase 10 that is") as told:
        segmenter.segment([image], [longer])
    assert len(told) == 1


def test_a_step_without_phrases(model, processor):
    given = images()[:2]
    found = SAM3(model, processor).segment_with_presence(given, [[], []])
    assert [(tuple(f.masks.shape), tuple(f.presence.shape)) for f in found] == [
        ((0, 40, 56), (0,)),
        ((0, 33, 21), (0,)),
    ]


@pytest.mark.parametrize(
    "odd", [{"region": "both"}, {"max_batch": 0}, {"presence_threshold": 1.5}, {"score_threshold": -1}]
)
def test_an_odd_setting_is_refused(model, processor, odd):
    with pytest.raises(ValueError, match=next(iter(odd))):
        SAM3(model, processor, **odd)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_of_transformers(tmp_path, dtype):
    """It is recognised by its config.json, frozen, and gives in each dtype what transformers gives in it."""
    segmenter = SAM3.from_pretrained(save(tmp_path), dtype, presence_threshold=0, max_batch=1)
    assert not segmenter.training
    assert {(parameter.dtype, parameter.requires_grad) for parameter in segmenter.parameters()} == {(dtype, False)}
    image, prompts = images()[0], ["a dog", ONE("a dog")]
    (found,) = segmenter.segment_with_presence([image], [prompts])
    outputs = reference(segmenter.model, segmenter.processor, image, "a dog")
    for prompt, mask in zip(prompts, found.masks, strict=True):
        assert torch.equal(mask, expected(segmenter.processor, outputs, SIZES[0], prompt, "semantic", 0))
    assert isinstance(load_segmenter(str(tmp_path)), SAM3)


def test_the_image_part_of_a_video_model(tmp_path):
    """As facebook/sam3 is published."""
    from transformers import Sam3VideoConfig, Sam3VideoModel

    video = Sam3VideoModel(Sam3VideoConfig(detector_config=tiny_config().to_dict(), tracker_config=_tracker()))
    video.detector_model.load_state_dict(tiny_model().state_dict())
    video.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam3_video"
    segmenter = load_segmenter(str(tmp_path))
    assert isinstance(segmenter, SAM3)
    for ours, theirs in zip(segmenter.model.parameters(), tiny_model().parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _tracker():
    """A small tracker, which is left out."""
    small = {"hidden_size": 16, "num_attention_heads": 2}
    return {"vision_config": tiny_config().vision_config.to_dict(), "mask_decoder_config": small}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "has no tokenizer_config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no .safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "cannot be built: SafetensorError"),
        (lambda folder: _without(folder, "presence_head"), "lack 6 of the weights .*presence_head"),
        (lambda folder: _with_nan(folder), "holds NaN or infinity"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "sam2"}'), "is not of a SAM 3"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(tmp_path, spoil, message):
    spoil(save(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_sam3(tmp_path, torch.float32)
    assert "\n" not in str(error.value)


def _change(folder, change):
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def _without(folder, part):
    _change(folder, lambda state: {name: weight for name, weight in state.items() if part not in name})


def _with_nan(folder):
    _change(folder, lambda state: {name: weight * float("nan") for name, weight in state.items()})


def test_a_model_that_asks_for_access_is_told_of(monkeypatch):
    from httpx2 import Request, Response
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_, **__):
        response = Response(403, request=Request("GET", "http://localhost/facebook/sam3"))
        raise GatedRepoError("403 Client Error. (Request ID: 0)\n\nCannot access gated repo", response=response)

    monkeypatch.setattr("lightning_sal.segmenters.weights.require_hub", lambda name: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(FileNotFoundError, match=r"facebook/sam3.*granted access.*hf auth login") as error:
        load_segmenter("facebook/sam3")
    assert "\n" not in str(error.value)


class Boxes:
    """Answers each box by an empty mask."""

    def segment(self, images, prompts):
        return [
            torch.zeros(len(p), *image.shape[:2], dtype=torch.bool) for image, p in zip(images, prompts, strict=True)
        ]


def test_beside_a_segmenter_without_presence_scores(model, processor):
    box, (first, second, *_) = VisualPrompt(box=(0, 0, 4, 4)), images()
    words = SAM3(model, processor)
    both = SegmenterByPrompt(words, Boxes())
    mixed, boxes = both.segment_with_presence([first, second], [[box, "a dog"], [box]])
    (alone,) = words.segment_with_presence([first], [["a dog"]])
    assert torch.equal(mixed.masks[1], alone.masks[0])
    assert mixed.presence.isnan().tolist() == [True, False]
    assert mixed.presence[1] == alone.presence[0]
    assert boxes.presence is None
