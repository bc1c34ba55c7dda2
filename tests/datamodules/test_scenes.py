"""The datamodule of procedural scenes."""

from itertools import islice

import pytest
import torch

from lightning_sal.datamodules import PredictDataModule, ScenesDataModule
from lightning_sal.tasks import task_of


def ready(**options):
    data = ScenesDataModule(**{"batch_size": 4, "steps_per_epoch": 3, "annotated": 6, "val_size": 5, **options})
    data.setup("fit")
    return data


def keys(stream, batches):
    return [group.key for batch in islice(stream, batches) for group in batch]


def test_rl_has_masks_alone_and_sft_a_fixed_annotated_set():
    loaders = ready().streams
    rl = list(islice(loaders["rl"], 6))
    assert all(group.response is None and group.masks for batch in rl for group in batch)
    assert len({group.key for batch in rl for group in batch}) == 24
    sft = list(islice(loaders["sft"], 6))
    assert all(group.response for batch in sft for group in batch)
    assert len({group.key for batch in sft for group in batch}) == 6


def test_the_seed_draws_rl_scenes_and_leaves_annotated_and_held_out_ones():
    one, two = ready(seed=0), ready(seed=1)
    assert not set(keys(one.streams["rl"], 3)) & set(keys(two.streams["rl"], 3))
    assert set(keys(one.streams["sft"], 6)) == set(keys(two.streams["sft"], 6))
    held_out = [[group.key for batch in data.val_dataloader() for group in batch] for data in (one, two)]
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) == 5


def test_one_stream_comes_as_it_is_and_goes_on_where_it_stood():
    data = ready(streams=["rl"])
    first = keys(data.train_dataloader(), 2)
    state = data.state_dict()
    later = keys(data.train_dataloader(), 2)
    again = ready(streams=["rl"])
    again.load_state_dict(state)
    assert keys(again.train_dataloader(), 2) == later
    assert not set(first) & set(later)


def test_an_rl_step_may_take_other_numbers_of_prompts_than_an_sft_step():
    loaders = ready(rl_batch_size=7).streams
    assert {name: len(next(stream)) for name, stream in loaders.items()} == {"rl": 7, "sft": 4}
    assert keys(ready(rl_batch_size=8).streams["rl"], 1) == keys(ready().streams["rl"], 2)  # the same prompts, in order
    with pytest.raises(ValueError, match="rl_batch_size must be at least 1"):
        ready(rl_batch_size=0)


def test_the_scenes_of_test_are_there_in_a_fit_for_those_that_ask():
    data = ready(test_size=6)
    within = [group.key for batch in data.test_dataloader() for group in batch]
    other = ScenesDataModule(batch_size=4, test_size=6)
    other.setup("test")
    assert within == [group.key for batch in other.test_dataloader() for group in batch]
    assert not set(within) & {group.key for batch in data.val_dataloader() for group in batch}
    with pytest.raises(ValueError, match="no data to test on"):
        ready(test_size=0).test_dataloader()


@pytest.mark.parametrize(("options", "word"), [({"streams": ["rl", "dpo"]}, "dpo"), ({"tasks": {"depth": 1}}, "depth")])
def test_unknown_names_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        ScenesDataModule(**options)


def test_images_to_predict(tmp_path):
    from PIL import Image

    paths = []
    for name, size in (("a.png", (8, 6)), ("b.jpg", (5, 7))):
        Image.new("RGB", size, (200, 10, 10)).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    singles = list(PredictDataModule(paths, task="sis").predict_dataloader())
    assert [group.paths for batch in singles for group in batch] == [(paths[0],), (paths[1],)]
    (batch,) = PredictDataModule(paths, task="cosod").predict_dataloader()
    (group,) = batch.groups
    assert [image.shape for image in group.images] == [torch.Size((6, 8, 3)), torch.Size((7, 5, 3))]
    assert group.masks is None


def test_images_that_cannot_be_predicted_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        PredictDataModule([str(tmp_path / "gone.png")])
    with pytest.raises(ValueError, match="at least 2"):
        PredictDataModule([str(tmp_path / "text.png")], task="cosod")
    with pytest.raises(ValueError, match="unknown task"):
        PredictDataModule([str(tmp_path / "text.png")], task="depth")
    with pytest.raises(ValueError, match=r"text\.png"):
        list(PredictDataModule([str(tmp_path / "text.png")]).predict_dataloader())


def test_without_reasoning_annotations_and_format_know_of_the_answer_alone():
    plain, brief = (
        ScenesDataModule(batch_size=6, annotated=9, val_size=6, reasoning=reasoning) for reasoning in (True, False)
    )
    for data in (plain, brief):
        data.setup("fit")
    for one, two in zip(next(iter(plain.streams["sft"])), next(iter(brief.streams["sft"])), strict=True):
        assert one.key == two.key
        assert one.response.endswith(two.response)
        assert two.response.startswith("<answer>")
        assert task_of(two).format_reward(two.response) == 1.0
        assert task_of(one).format_reward(one.response) == 1.0
    assert not any(group.reasoning for group in next(iter(brief.streams["rl"])))
    assert not any(group.reasoning for batch in brief.val_dataloader() for group in batch)
