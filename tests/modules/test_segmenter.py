"""Fine-tuning of the segmenter: what it learns from, what it leaves alone, what it saves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.modules import SegmenterFineTuning
from lightning_sal.objectives import mask_bce, mask_dice, pair_masks
from lightning_sal.samples import Batch
from lightning_sal.segmenters import EVFSAM2
from lightning_sal.tasks import TASKS
from tests.modules.parts import scenes, trainer

GROUPS = [SceneGroups(0, {task: 1}, annotated=True)[0] for task in ("sod", "sis", "cosod")]
ADAMW = partial(torch.optim.AdamW, lr=1e-3)


def data(**options):
    return scenes(**{"streams": ["sft"], "batch_size": 3, "steps_per_epoch": 2, "annotated": 3, **options})


def weights(module):
    return {name: value.detach().clone() for name, value in module.segmenter.named_parameters()}


@pytest.mark.parametrize("dice_weight", [0.0, 0.5])
def test_the_loss_is_the_mean_over_all_masks_of_the_step(tmp_path, dice_weight):
    """Against mask_logits, one image and one expression at a time; CoSOD asks the same of each of its images."""
    losses = []

    class Recording(SegmenterFineTuning):
        def training_step(self, batch, batch_idx):
            expected = []
            for group in batch.groups:
                texts = TASKS[group.task].parse(group.response).expressions
                for image, target in zip(group.images, group.masks, strict=True):
                    ids = [torch.tensor(row) for row in self.segmenter.tokenize(texts)]
                    alone = torch.cat([self.segmenter.mask_logits(image, [row]) for row in ids])
                    paired = pair_masks(alone, target, TASKS[group.task].masks_per_image is None)
                    expected += (mask_bce(*paired) + dice_weight * mask_dice(*paired)).tolist()
            loss = super().training_step(batch, batch_idx)
            losses.append((loss.item(), sum(expected) / len(expected)))
            return loss

    module = Recording(dice_weight=dice_weight, optimizer=partial(torch.optim.SGD, lr=0.0))
    trainer(tmp_path, max_steps=2).fit(module, data())
    assert len(losses) == 2
    for ours, expected in losses:
        assert ours == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("train", "moves"),
    [
        (["mask_decoder"], ("visual_model.sam_mask_decoder.",)),
        (["beit3"], ("mm_extractor.", "text_hidden_fcs.")),
    ],
)
def test_only_the_parts_that_are_named_are_trained(tmp_path, train, moves):
    module = SegmenterFineTuning(train=train, optimizer=ADAMW)
    before = weights(module)
    trainer(tmp_path, max_steps=2).fit(module, data())
    changed = {name for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(moves) for name in changed)
    assert not any("iou_prediction_head" in name for name in changed)
    module.train()
    assert module.segmenter.visual_model.sam_mask_decoder.training == ("mask_decoder" in train)
    assert module.segmenter.mm_extractor.training == ("beit3" in train)
    assert not module.segmenter.visual_model.image_encoder.training


def test_training_on_a_few_samples_learns_them(tmp_path):
    torch.manual_seed(0)
    module = SegmenterFineTuning(optimizer=ADAMW)
    spoilt = module.segmenter.visual_model.sam_mask_decoder.output_hypernetworks_mlps[0].layers[-1]
    torch.nn.init.normal_(spoilt.weight, std=0.02)
    batch = Batch(tuple(GROUPS))

    def loss():
        with torch.no_grad():
            return torch.cat([mask_bce(*parts) for parts in module.pairs(batch.groups)]).mean().item()

    before = loss()
    loader = torch.utils.data.DataLoader([batch] * 40, batch_size=None)
    trainer(tmp_path, max_steps=40).fit(module, loader)
    assert loss() < 0.5 * before


def test_validation_measures_the_same_masks(tmp_path):
    module = SegmenterFineTuning()
    run = trainer(tmp_path, limit_val_batches=1.0)
    (logged,) = run.validate(module, data(val_size=6), verbose=False)
    assert set(logged) == {"val/s_measure", "val/giou", "val/ciou"}
    assert 0.6 < logged["val/giou"] <= 1  # the embedded segmenter knows the scenes
    assert 0.6 < logged["val/s_measure"] <= 1


def test_a_checkpoint_holds_what_is_trained_and_fits_no_other_choice(tmp_path):
    module = SegmenterFineTuning(optimizer=ADAMW)
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all(name.startswith("segmenter.visual_model.sam_mask_decoder.") for name in state)
    again = SegmenterFineTuning(optimizer=ADAMW)
    trainer(tmp_path, max_steps=1).fit(again, data(), ckpt_path=tmp_path / "a.ckpt")
    for name, value in weights(module).items():
        assert torch.equal(value, again.segmenter.get_parameter(name)), name
    other = SegmenterFineTuning(train=["beit3"], optimizer=ADAMW)
    with pytest.raises(ValueError, match="does not fit this segmenter"):
        trainer(tmp_path, max_steps=2).fit(other, data(), ckpt_path=tmp_path / "a.ckpt")


def test_the_result_is_a_segmenter_folder_and_none_is_overwritten(tmp_path):
    module = SegmenterFineTuning(optimizer=ADAMW, export=tmp_path / "model")
    trainer(tmp_path, max_steps=1).fit(module, data())
    loaded = EVFSAM2.from_pretrained(tmp_path / "model")
    for name, value in weights(module).items():
        assert torch.equal(value, loaded.get_parameter(name)), name
    with pytest.raises(FileExistsError, match="name another folder"):
        SegmenterFineTuning(export=tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": None}, "lacks one"),
        ({"response": None}, "lacks one"),
        ({"response": "nothing"}, "no expression can be read"),
    ],
)
def test_a_sample_that_teaches_nothing_is_named(change, message):
    with pytest.raises(ValueError, match=message) as error:
        SegmenterFineTuning().pairs([replace(GROUPS[0], **change)])
    assert str(error.value).startswith(GROUPS[0].key)
