import builtins
import json
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import ImageGroups, UnreadableSample, jsonl_records, task_records
from lightning_sal.datasets.tables import Cell, columns
from lightning_sal.internals.shell import installing
from lightning_sal.tasks import get_task

PERCEPTION = get_task("perception")
RING = [1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0]
DRAWN = np.zeros((9, 12), bool)
DRAWN[1:4, 1:4] = True


def picture(value=0, size=(12, 9)):
    stream = BytesIO()
    Image.new("RGB", size, (value,) * 3).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write(path, rows, **options):
    """A Parquet table, or an Arrow stream as `save_to_disk` of the `datasets` library leaves it."""
    pa = pytest.importorskip("pyarrow", reason="tables are read by pyarrow, of the extra `datasets`")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, **options)
        return path
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return path


def row(number, *answers, **more):
    return {"question_id": str(number), "image": picture(number), "answer": list(answers), "segmentation": RING,
            "bbox": [1.0, 1.0, 3.0, 3.0], "file_name": f"{number}.jpg"} | more  # fmt: skip


def test_tables_with_images_inside_shard_by_shard(tmp_path, capsys):
    rows = [row(number, f"thing {number}", f"object {number}") for number in range(5)]
    write(tmp_path / "data/testA-00000-of-00002-ab12.parquet", rows[:3], row_group_size=2)
    write(tmp_path / "data/testA-00001-of-00002-ab12.parquet", rows[3:])
    write(tmp_path / "data/val-00000-of-00001.parquet", rows[:1])
    records = task_records(PERCEPTION, tmp_path, "test")
    assert [record.question for record in records][:3] == ["thing 0", "object 0", "thing 1"]
    groups = ImageGroups(records)
    for index in (9, 0, 4, 5, 8, 2):  # across groups and shards
        group = groups[index]
        assert group.images[0].unique().tolist() == [index // 2]
        assert group.masks[0].tolist() == [DRAWN.tolist()]
        assert group.boxes[0].tolist() == [[1, 1, 4, 4]]
        assert group.paths == ()
    assert (
        len(task_records(PERCEPTION, tmp_path / "testA"))
        == len(task_records(PERCEPTION, tmp_path / "data/testA"))
        == 10
    )
    assert check_data([str(tmp_path)]) == 0
    assert "12 samples (perception), 12 targets, 12 images, no faults" in capsys.readouterr().out


def test_tables_that_name_the_photographs_of_coco(save, tmp_path, capsys):
    save("train2014/a.jpg")
    annotation = {"segmentation": [RING], "bbox": [1, 1, 3, 3], "id": 7}
    image = {"height": 9, "width": 12, "file_name": "a.jpg"}
    good = {
        "sentences": [{"raw": "Left", "sent": "left"}, {"raw": "R", "sent": "small"}],
        "ref_id": 3,
        "image_path": "coco/train2014/a.jpg",
        "raw_anns": json.dumps(annotation),
        "raw_image_info": json.dumps(image),
        "bbox": [1.0, 1.0, 4.0, 4.0],
    }
    path = write(tmp_path / "validation.parquet", [good])
    first, second = (record.read() for record in task_records(PERCEPTION, path))
    assert (first.key, first.question, second.question) == ("3.1", "left", "small")
    assert first.boxes[0].tolist() == [[1, 1, 4, 4]]
    assert first.masks[0].tolist() == [DRAWN.tolist()]
    bad = [good, good | {"raw_anns": "{"}, good | {"sentences": []}, good | {"image_path": None}]
    bad += [good | {"raw_image_info": json.dumps(image | {"width": 24})}, good | {"image_path": "coco/train2014/b.jpg"}]
    write(path, bad)
    assert check_data([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert [line.removeprefix(f"{path}: ")[:5] for line in lines] == [f"row {n}" for n in (2, 3, 4, 5, 5, 6, 6)]
    for line, reason in zip(
        lines,
        ["not JSON", "no sentences", "`image_path` is not a text", *["do not fit"] * 2, *["b.jpg: no such file"] * 2],
        strict=True,
    ):
        assert reason in line, line


def test_every_bad_row_is_named(tmp_path, capsys):
    no_bytes, no_image = {"bytes": None, "path": "x.jpg"}, {"bytes": b"GIF", "path": None}
    rows = [row(0, "a"), row(1), row(2, " "), row(3, "a", bbox=[1.0]), row(4, "a", segmentation=[1.0, 2.0])]
    rows += [row(5, "a", image=no_bytes), row(6, "a", image=no_image), row(7, "a", bbox=[50.0, 1.0, 9.0, 3.0])]
    path = write(tmp_path / "val.parquet", rows)
    assert check_data([str(path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    for line, (number, reason) in zip(
        lines,
        [
            (2, "no sentences"),
            (3, "no sentences"),
            (4, "box 1, [1.0]: not 4 numbers"),
            (5, "no polygon of 3 points or more"),
            (6, "`image` holds no bytes of an image"),
            (7, "image: not an image, or cut off in its header"),
            (8, "box 1, [50.0, 1.0, 59.0, 4.0]: outside of the image, 12 x 9 pixels"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{path}: row {number}: "), line
        assert reason in line, line
    assert "8 samples (perception)" in last
    assert "7 faults" in last


@pytest.mark.parametrize(
    "name", ["set_840/train/data-00000-of-00001.arrow", "set_840/data/train-00000-of-00001.parquet"]
)
def test_tables_of_vision_reasoner(tmp_path, name):
    solution = json.dumps([{"bbox_2d": [84, 42, 630, 756], "point_2d": [210, 420]}])
    rows = [
        {"id": str(n), "problem": f"thing {n}", "solution": solution, "image": picture(n, (40, 20)), "img_height": 20,
         "img_width": 40} for n in range(3)
    ]  # fmt: skip
    path = write(tmp_path / name, rows)
    records = task_records(PERCEPTION, tmp_path, "train")
    group = records[2].read()
    assert group.images[0].unique().tolist() == [2]
    assert group.boxes[0].tolist() == [[4, 1, 30, 18]]
    target = tmp_path / "out/train.jsonl"
    assert convert([str(path), str(target), "--to", "jsonl"]) == 0
    assert len(list((tmp_path / "out/train_images").iterdir())) == 3
    assert [record.read().boxes[0].tolist() for record in jsonl_records(target)] == [[[4, 1, 30, 18]]] * 3
    assert [record.read().images[0].unique().item() for record in jsonl_records(target)] == [0, 1, 2]
    assert check_data([str(target)]) == 0


def test_an_image_of_several_sentences_is_unpacked_once(tmp_path):
    path = write(tmp_path / "val.parquet", [row(0, "a", "b", "c"), row(1, "d")])
    target = tmp_path / "out.jsonl"
    assert convert([str(path), str(target), "--to", "jsonl"]) == 0
    assert len(target.read_text().splitlines()) == 4
    assert len(list((tmp_path / "out_images").iterdir())) == 2


def test_a_damaged_table_is_one_line(tmp_path):
    path = write(tmp_path / "val.parquet", [row(0, "a")])
    (record,) = task_records(PERCEPTION, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert columns(path) == frozenset()
    with pytest.raises(ValueError, match="no perception layout"):
        task_records(PERCEPTION, path)
    with pytest.raises(UnreadableSample, match=r"val\.parquet: row 1: .*val\.parquet: ") as error:
        record.read()
    assert "\n" not in str(error.value)
    with pytest.raises(UnreadableSample):
        Cell(tmp_path / "none.parquet", "image", 0)()


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "val.parquet", [row(0, "a")])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"val\.parquet: tables are read by pyarrow: (uv )?pip install") as error:
        task_records(PERCEPTION, path)
    assert str(error.value).endswith(installing("datasets"))
