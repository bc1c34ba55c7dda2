import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.datasets import Record, UnreadableSample, layout_of
from lightning_sal.datasets.cosod import GroupDraws, chunks
from lightning_sal.tasks import COSOD, SIS, SOD

WHITE = np.full((9, 12), 255, np.uint8)
LAYOUTS = {task.name: layout_of(task) for task in (SOD, SIS, COSOD)}
REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real photographs lie in ../shared/data, which is absent")


def keys(records: list[Record]) -> list[str]:
    return [record.key for record in records]


SOD_FOLDERS = [
    ("DUTS/DUTS-TR/DUTS-TR-Image", "jpg", "DUTS/DUTS-TR/DUTS-TR-Mask"),
    ("DUTS-TE/DUTS-TE-Image", "jpg", "DUTS-TE/DUTS-TE-Mask"),
    ("ECSSD/images", "jpg", "ECSSD/ground_truth_mask"),
    ("DUT-OMRON/DUT-OMRON-image", "jpg", "DUT-OMRON/pixelwiseGT-new-PNG"),
    ("PASCAL-S/Imgs", "jpg", "PASCAL-S/Imgs"),
    ("HKU-IS/imgs", "png", "HKU-IS/gt"),
    ("X/Image", "jpg", "X/Mask"),
    ("X/images", "png", "X/masks"),
    ("X/Image", "JPG", "X/GT"),
    ("X/im", "jpg", "X/gt"),
    ("X/photos", "jpg", "X/labels"),
    ("X/images_small", "jpg", "X/masks_small"),
    ("ECSSD/ECSSD/images", "jpg", "ECSSD/ECSSD/ground_truth_mask"),
    ("DUT-OMRON/DUT-OMRON-image/DUT-OMRON-image", "jpg", "DUT-OMRON/pixelwiseGT-new-PNG"),
    ("DUT-OMRON/DUT-OMRON-image/DUT-OMRON-image", "jpg", "DUT-OMRON/DUT-OMRON-gt-pixelwise/pixelwiseGT-new-PNG"),
    ("datasets/imgs/pascal", "jpg", "datasets/masks/pascal"),
    ("X/images/images", "jpg", "X/masks/masks"),
    ("SOC/TestSet/Imgs", "jpg", "SOC/TestSet/gt"),
]


@pytest.mark.parametrize(("images", "suffix", "masks"), SOD_FOLDERS)
@pytest.mark.parametrize("above", [0, 1])
def test_every_sod_layout_is_found_from_the_dataset_and_from_the_folder_above(
    save, tmp_path, images, suffix, masks, above
):
    for stem in ("0002", "0001"):
        save(f"{images}/{stem}.{suffix}")
        save(f"{masks}/{stem}.png", WHITE)
    save("X/predictions/ours/0001.png", WHITE)
    root = tmp_path if above else tmp_path / Path(images).parts[0]
    records = LAYOUTS["sod"].records(root)
    assert keys(records) == ["0001", "0002"]
    group = records[0].read()
    assert (group.task, len(group.images)) == ("sod", 1)
    assert group.paths == (str(tmp_path / images / f"0001.{suffix}"),)
    assert group.masks is not None
    assert group.masks[0].shape == (1, 9, 12)
    assert group.masks[0].all()


def test_a_split_chooses_and_no_split_refuses_several(save, tmp_path):
    for split in ("TR", "TE"):
        save(f"DUTS-{split}/DUTS-{split}-Image/{split}.jpg")
        save(f"DUTS-{split}/DUTS-{split}-Mask/{split}.png", WHITE)
    sod = LAYOUTS["sod"]
    assert keys(sod.records(tmp_path, "train")) == ["TR"]
    assert keys(sod.records(tmp_path, "test")) == ["TE"]
    assert keys(sod.records(tmp_path / "DUTS-TE", "val")) == ["TE"]  # named itself, whatever it is used for
    for split in (None, "val"):
        with pytest.raises(ValueError, match=r"\(DUTS-TE, DUTS-TR\); name one"):
            sod.records(tmp_path, split)


def test_what_has_no_partner_is_named(save, tmp_path, caplog):
    save("images/a.jpg")
    save("images/b.jpg")
    save("masks/b.png", WHITE)
    save("masks/c.png", WHITE)
    records = LAYOUTS["sod"].records(tmp_path)
    assert caplog.messages == [f"{tmp_path}: left out 1 stray files (c.png): check-data says why"]
    assert keys(records) == ["a", "b"]
    records[1].read()
    with pytest.raises(UnreadableSample, match=r"a\.jpg: an image without a mask"):
        records[0].read()
    assert [len(record.problems()) for record in records] == [1, 0]


def test_problems_name_image_and_mask_apart(save, tmp_path):
    image, mask = save("images/a.jpg"), save("masks/a.png", WHITE)
    for path in (image, mask):
        path.write_bytes(path.read_bytes()[:40])
    lines = LAYOUTS["sod"].records(tmp_path)[0].problems()
    assert [line.split(": ")[0] for line in lines] == [str(image), str(mask)]


@pytest.mark.parametrize("task", ["sod", "sis", "cosod"])
def test_an_unknown_layout_says_what_was_looked_for_and_found(save, tmp_path, task):
    save("pictures/a.jpg")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"looked for .*; found pictures/ \(1 images\), 1 x \.txt") as error:
        LAYOUTS[task].records(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        LAYOUTS[task].records(tmp_path / "nowhere")


COSOD_FOLDERS = [
    ("CoCA/image", "jpg", "CoCA/binary", "png"),
    ("CoSal2015/Image", "jpg", "CoSal2015/groundtruth", "png"),
    ("CoSOD3k/images", "jpg", "CoSOD3k/GroundTruth", "png"),
    ("CoCo-SEG/img", "jpg", "CoCo-SEG/GT", "png"),
    ("iCoseg/Img", "jpg", "iCoseg/gt", "png"),
    ("MSRC/image", "bmp", "MSRC/gts", "bmp"),
    ("Internet/image", "jpg", "Internet/groundtruth", "jpg"),
    ("data/images/CoCA", "jpg", "data/gts/CoCA", "png"),
    ("CoCA/CoCA/image", "jpg", "CoCA/CoCA/binary", "png"),
    ("X/img/img", "jpg", "X/gt/gt", "png"),
]


@pytest.mark.parametrize(("images", "suffix", "masks", "mask_suffix"), COSOD_FOLDERS)
def test_every_cosod_layout_is_found(save, tmp_path, images, suffix, masks, mask_suffix):
    for group in ("cow", "Train"):
        for stem in "abc":
            save(f"{images}/{group}/{stem}.{suffix}")
            save(f"{masks}/{group}/{stem}.{mask_suffix}", WHITE)
    records = LAYOUTS["cosod"].records(tmp_path, "test")
    assert keys(records) == ["Train", "cow"]
    group = records[1].read()
    assert len(group.images) == 3
    assert group.masks is not None
    assert all(mask.all() for mask in group.masks)


def test_masks_inside_the_group_folder(save, tmp_path):
    for stem in "ab":
        save(f"Datasets/images/cow/{stem}.bmp")
        save(f"Datasets/images/cow/GroundTruth/{stem}.bmp", WHITE)
    for root in (tmp_path, tmp_path / "Datasets", tmp_path / "Datasets/images"):
        records = LAYOUTS["cosod"].records(root)
        assert keys(records) == ["cow"]
        assert len(records[0].read().images) == 2


def group_records(save, tmp_path: Path, sizes: dict[str, int]) -> list[Record]:
    for group, size in sizes.items():
        for i in range(size):
            save(f"image/{group}/{i:02}.png", np.full((9, 12), i, np.uint8))
            save(f"gt/{group}/{i:02}.png", WHITE)
    return LAYOUTS["cosod"].records(tmp_path)


@pytest.mark.parametrize(
    ("size", "group_size", "expected"), [(8, 8, [8]), (9, 8, [5, 4]), (17, 8, [6, 6, 5]), (5, 2, [3, 2]), (3, 2, [3])]
)
def test_chunks_show_every_image_once_and_leave_none_alone(save, tmp_path, size, group_size, expected):
    parts = chunks(group_records(save, tmp_path, {"cow": size}), group_size)
    assert [len(part.photographs) for part in parts] == expected
    assert keys(parts) == [f"cow/{i}" for i in range(len(expected))]
    assert [photo.path.stem for part in parts for photo in part.photographs] == [f"{i:02}" for i in range(size)]


def test_draws_take_k_images_of_every_group_once_an_epoch(save, tmp_path):
    draws = GroupDraws(group_records(save, tmp_path, {"cow": 6, "dog": 6, "elk": 2}), group_size=3, seed=5)
    read = [draws[i] for i in range(60)]
    for epoch in range(20):
        assert sorted(group.key.split("/")[0] for group in read[3 * epoch : 3 * epoch + 3]) == ["cow", "dog", "elk"]
    for group in read:
        values = [int(image[0, 0, 0]) for image in group.images]
        assert len(set(values)) == len(values) == (2 if "elk" in group.key else 3)
    seen = {int(image[0, 0, 0]) for group in read if "cow" in group.key for image in group.images}
    assert seen == set(range(6))
    assert len({group.key for group in read}) == 60
    assert draws[41].paths == GroupDraws(draws.records, 3, seed=5)[41].paths
    assert [draws[i].paths for i in range(9)] != [GroupDraws(draws.records, 3, seed=6)[i].paths for i in range(9)]


def test_colour_coded_instances(save, tmp_path):
    codes = np.zeros((9, 12, 3), np.uint8)
    save("image/1.jpg")
    save("gt/1.png", codes)
    codes[:4, :5], codes[6:, 7:] = (255, 0, 0), (0, 255, 0)
    save("image/2.jpg")
    save("gt/2.png", codes)
    empty, two = (record.read() for record in LAYOUTS["sis"].records(tmp_path))
    assert empty.masks is not None
    assert two.masks is not None
    assert empty.masks[0].shape == (0, 9, 12)
    assert [int(mask.sum()) for mask in two.masks[0]] == [15, 20]


def coco(path: Path, names: list[str], annotations: list[dict]) -> None:
    images = [{"id": i, "file_name": name, "height": 9, "width": 12} for i, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": [{"id": i} | a for i, a in enumerate(annotations)]}))


SIS_FOLDERS = [  # (images of train, of val, json of train, of val)
    ("train", "val", "Li_train500.json", "Li_val200.json"),
    ("train/images", "val/images", "SOC_train1800.json", "SOC_val600.json"),
    ("train/images", "val/images", "train/SIS10K_train.json", "val/SIS10K_val.json"),
    ("isod/imgs", "isod/imgs", "isod/train.json", "isod/val.json"),
]


@pytest.mark.parametrize(("train", "val", "train_json", "val_json"), SIS_FOLDERS)
def test_every_coco_layout_is_found_by_split(save, tmp_path, train, val, train_json, val_json):
    box = {"image_id": 0, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "iscrowd": 0}
    crowd = {"image_id": 0, "segmentation": {"size": [9, 12], "counts": [0, 108]}, "iscrowd": 1}
    for folder, file, stems in ((train, train_json, ("1", "2")), (val, val_json, ("1", "3"))):
        for stem in stems:
            save(f"{folder}/{stem}.jpg", np.full((9, 12, 3), 100 * (folder == val), np.uint8))
        coco(tmp_path / file, [f"{stem}.jpg" for stem in stems], [box, crowd])
    for split, folder, stems in (("train", train, ["1", "2"]), ("val", val, ["1", "3"])):
        records = LAYOUTS["sis"].records(tmp_path, split)
        assert keys(records) == stems
        one, none = (record.read() for record in records)
        assert one.paths == (str(tmp_path / folder / "1.jpg"),)
        assert one.masks is not None
        assert none.masks is not None
        expected = np.zeros((1, 9, 12), bool)
        expected[0, 1:4, 2:6] = True
        assert np.array_equal(one.masks[0].numpy(), expected)
        assert none.masks[0].shape == (0, 9, 12)  # an image without annotations is an empty ground truth
    assert keys(LAYOUTS["sis"].records(tmp_path / val_json, "test")) == ["1", "3"]
    with pytest.raises(ValueError, match="name one of them"):
        LAYOUTS["sis"].records(tmp_path, "test")


def test_a_json_names_its_missing_photographs_and_lost_annotations(save, tmp_path):
    save("images/a.jpg")
    coco(tmp_path / "all.json", ["a.jpg", "b.jpg"], [{"image_id": 7, "segmentation": [[0, 0, 1, 0, 1, 1]]}])
    lines = [line for record in LAYOUTS["sis"].records(tmp_path) for line in record.problems()]
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path / 'images' / 'b.jpg'}: no such file")
    assert "annotation 0: belongs to image 7" in lines[1]


def test_a_json_frame_before_the_exif_turn_is_turned_along(save, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save("images/a.jpg", None, exif=exif)
    coco(tmp_path / "all.json", ["a.jpg"], [{"image_id": 0, "segmentation": [[0, 0, 3, 0, 3, 2, 0, 2]]}])
    group = LAYOUTS["sis"].records(tmp_path)[0].read()
    assert group.masks is not None
    expected = np.zeros((12, 9), bool)
    expected[:3, -2:] = True  # the top left corner lies at the top right after a quarter turn clockwise
    assert np.array_equal(group.masks[0][0].numpy(), expected)


@needs_real
@pytest.mark.parametrize(
    ("task", "folder", "masks", "samples"),
    [
        ("sod", "sod/SOD", "GT", 60),
        ("cosod", "cosod/VOC-coseg", "GT", 4),
        ("cosod", "cosod/MSRC", "Datasets/images/cow/GroundTruth", 1),
    ],
)
def test_real_masks_are_those_that_pil_shows_cut_at_half(task, folder, masks, samples):
    records = LAYOUTS[task].records(REAL / folder, "train")
    assert len(records) == samples
    files = {(path.parent.name, path.stem): path for path in (REAL / folder / masks).rglob("*.*")}
    for record in records:
        group = record.read()
        for path, found in zip(group.paths, group.masks or (), strict=True):
            key = (record.key, Path(path).stem)
            file = files.get(key) or files[Path(masks).name, Path(path).stem]
            with Image.open(file) as image:
                assert np.array_equal(found[0].numpy(), np.asarray(image.convert("L")) > 127)


def instances(record: Record) -> torch.Tensor:
    (masks,) = record.read().masks or (torch.zeros(0),)
    return masks


@needs_real
def test_real_instances_of_a_coco_json():
    content = json.loads((REAL / "sis/COCO-salient/instances.json").read_text())
    boxes: dict[str, list] = {Path(image["file_name"]).stem: [] for image in content["images"]}
    names = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    for annotation in content["annotations"]:
        boxes[names[annotation["image_id"]]].append(annotation["bbox"])
    records = LAYOUTS["sis"].records(REAL / "sis/COCO-salient")
    assert sorted(keys(records)) == sorted(boxes)
    for record in records:
        masks = instances(record)
        for mask, (x, y, width, height) in zip(masks.numpy(), boxes[record.key], strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            # Corners thinner than a pixel hold no pixel centre, so a box may lose a few pixels.
            assert np.allclose(found, [x, y, x + width, y + height], atol=6)


@needs_real
def test_real_coloured_instances_are_the_colours_that_pil_counts():
    for record in LAYOUTS["sis"].records(REAL / "sis/PennFudan-coloured"):
        masks = instances(record)
        with Image.open(REAL / f"sis/PennFudan-coloured/gt/{record.key}.png") as image:
            areas = {colour: count for count, colour in image.convert("RGB").getcolors() or () if colour != (0, 0, 0)}
        assert [areas[colour] for colour in sorted(areas)] == masks.sum((1, 2)).tolist()
