import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from lightning_sal.datamodules import (
    CoSODDataModule,
    ImageGroupsDataModule,
    SFTDataModule,
    SISDataModule,
    SODDataModule,
    UnifiedDataModule,
)
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.samples import Batch, Phased


def save(path: Path, value: int, size: tuple[int, int] = (9, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """12 SOD and 5 SIS photographs and 2 CoSOD groups of 5, each photograph of its own brightness."""
    for i in range(12):
        save(tmp_path / f"sod/images/{i:02}.png", i)
        save(tmp_path / f"sod/gt/{i:02}.png", 255)
    for i in range(5):
        save(tmp_path / f"sis/image/{i:02}.png", 20 + i)
        save(tmp_path / f"sis/gt/{i:02}.png", 255)
        for group in ("cow", "dog"):
            save(tmp_path / f"cosod/image/{group}/{i:02}.png", 40 + i)
            save(tmp_path / f"cosod/gt/{group}/{i:02}.png", 255)
    lines = [{"task": "sod", "images": [f"sod/images/{i:02}.png"], "response": f"r{i}"} for i in range(6)]
    (tmp_path / "sft.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {name: str(tmp_path / name) for name in ("sod", "sis", "cosod", "sft.jsonl")}


class Recorder(L.LightningModule):
    """Trains one number and records the keys of what it was shown; knows nothing of saliency."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys: dict[str, list[str]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.keys["train"] += [group.key for group in batch]
        return self.weight * 1.0

    def validation_step(self, batch: Batch, _: int) -> None:
        self.keys["val"] += [group.key for group in batch]

    def test_step(self, batch: Batch) -> None:
        self.keys["test"] += [group.key for group in batch]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoint = {} if "callbacks" in options else {"enable_checkpointing": False}
    return L.Trainer(default_root_dir=tmp_path, num_sanity_val_steps=0, **{**quiet, **checkpoint, **options})


def keys(batches: Any) -> list[str]:
    return [group.key for batch in batches for group in batch]


def draw(stream: Any, count: int) -> list[Batch]:
    return [next(stream) for _ in range(count)]


def test_each_task_feeds_fit_validate_and_test(folders, tmp_path):
    stems = {"sod": [f"{i:02}" for i in range(12)], "sis": [f"{i:02}" for i in range(5)]}
    stems["cosod"] = ["cow/0", "cow/1", "dog/0", "dog/1"]
    kinds: dict[str, Any] = {"sod": SODDataModule, "sis": SISDataModule, "cosod": CoSODDataModule}
    for task, kind in kinds.items():
        options = {"group_size": 3} if task == "cosod" else {}
        data = kind(folders[task], folders[task], folders[task], batch_size=2, **options)
        model = Recorder()
        runner = trainer(tmp_path, max_epochs=1)
        runner.fit(model, data)
        runner.test(model, data, verbose=False)
        assert model.keys["val"] == model.keys["test"] == stems[task]
        if task == "cosod":
            assert sorted(key[:3] for key in model.keys["train"]) == ["cow", "dog"]
            data.setup("fit")
            assert [len(group.images) for batch in draw(data.train_dataloader(), 4) for group in batch] == [3] * 8
        else:
            assert set(model.keys["train"]) == set(stems[task])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_fit_that_is_stopped_goes_on_with_the_next_sample(folders, tmp_path, num_workers):
    def data() -> SODDataModule:
        return SODDataModule(folders["sod"], batch_size=2, seed=3, steps_per_epoch=4, num_workers=num_workers)

    whole = Recorder()
    trainer(tmp_path, max_steps=11).fit(whole, data())
    first, second = Recorder(), Recorder()
    saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    trainer(tmp_path, max_steps=6, callbacks=[saver]).fit(first, data())
    trainer(tmp_path, max_steps=11).fit(second, data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert len(first.keys["train"]) == 12
    assert first.keys["train"] + second.keys["train"] == whole.keys["train"]


def test_the_unified_module_mixes_by_weight_and_offers_the_sft_stream(folders):
    train = {task: folders[task] for task in ("sod", "sis", "cosod")}
    data = UnifiedDataModule(
        train, train, weights={"sod": 2, "sis": 1, "cosod": 1}, group_size=4, sft=folders["sft.jsonl"], batch_size=4
    )
    data.setup("fit")
    streams: Any = data.train_dataloader()
    assert set(streams) == {"rl", "sft"}
    tasks = [group.task for batch in draw(streams["rl"], 250) for group in batch]
    assert {task: tasks.count(task) / 1000 for task in set(tasks)} == pytest.approx(
        {"sod": 0.5, "sis": 0.25, "cosod": 0.25}, abs=0.06
    )
    assert {group.response for batch in draw(streams["sft"], 3) for group in batch} == {f"r{i}" for i in range(6)}
    found = keys(data.val_dataloader())
    assert len(found) == len(set(found)) == 12 + 5 + 2 * 2
    again = UnifiedDataModule(**{"train": train, "group_size": 4, "sft": folders["sft.jsonl"], "batch_size": 4})
    again.setup("fit")
    again.load_state_dict(data.state_dict())
    assert {name: stream.position for name, stream in again.streams.items()} == {"rl": 1000, "sft": 12}


def test_a_task_takes_several_folders_and_keeps_their_samples_apart(folders, tmp_path):
    for name in ("first", "second"):
        for i in range(2):
            save(tmp_path / name / f"images/{i:02}.png", i)
            save(tmp_path / name / f"gt/{i:02}.png", 255)
    several: Any = {"sod": [str(tmp_path / "first"), str(tmp_path / "second")], "sis": folders["sis"]}
    data = UnifiedDataModule(several, several, batch_size=2)
    data.setup("fit")
    found = keys(data.val_dataloader())
    assert [key for key in found if key.startswith("sod")] == [
        "sod/first/00", "sod/first/01", "sod/second/00", "sod/second/01",
    ]  # fmt: skip
    assert len(found) == 4 + 5
    assert {key.rpartition("/")[0] for key in keys(draw(data.train_dataloader(), 30))} == {
        "sod/first", "sod/second", "sis",
    }  # fmt: skip


def test_sft_alone(folders, tmp_path):
    model = Recorder()
    trainer(tmp_path, max_epochs=1).fit(model, SFTDataModule(folders["sft.jsonl"], folders["sft.jsonl"], batch_size=3))
    assert sorted(model.keys["train"]) == model.keys["val"] == [f"sft/{i}" for i in range(1, 7)]


def test_limit_takes_the_first_samples(folders):
    data = SODDataModule(folders["sod"], folders["sod"], limit=3)
    data.setup("fit")
    assert keys(data.val_dataloader()) == ["00", "01", "02"]
    assert set(keys(draw(data.train_dataloader(), 6))) == {"00", "01", "02"}
    assert len(data.train_dataloader()) == 3


def test_a_bad_file_is_skipped_with_its_name_and_logged(folders, tmp_path):
    bad = tmp_path / "sod/images/07.png"
    bad.write_bytes(bad.read_bytes()[:30])
    model, data = Recorder(), SODDataModule(folders["sod"], max_unreadable=0.2)
    logged = []

    class Log(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            logged.append((metrics, step))

    with pytest.warns(UserWarning, match=r"skipped a sample that cannot be read: .*07\.png"):
        trainer(tmp_path, max_epochs=2, logger=Log(tmp_path)).fit(model, data)
    assert "07" not in model.keys["train"]
    assert len(model.keys["train"]) == 24
    assert (data.seen, data.unreadable) == (26, 2)
    assert [metrics for metrics, _ in logged if "data/unreadable" in metrics] == [
        {"data/unreadable": 1},
        {"data/unreadable": 2},
    ]


@pytest.mark.filterwarnings("ignore:skipped a sample")
def test_too_many_bad_samples_end_the_run_in_one_line(folders, tmp_path):
    for i in range(6):
        (tmp_path / f"sod/gt/{i:02}.png").unlink()
    with pytest.raises(UnreadableSample, match=r"\d of \d+ samples cannot be read, more than max_unreadable") as error:
        trainer(tmp_path, max_epochs=20).fit(Recorder(), SODDataModule(folders["sod"]))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:skipped a sample")
def test_the_share_of_bad_samples_is_taken_of_those_seen_and_of_at_least_100():
    data = SODDataModule("somewhere", max_unreadable=0.01)
    group: Any = object()
    data.on_after_batch_transfer(Phased("rl", Batch((group,), ("a: broken",))), 0)  # 1 of 2
    data.on_after_batch_transfer(Batch((group,) * 196), 0)
    data.on_after_batch_transfer(Batch((group,), ("b: broken",)), 0)  # 2 of 200
    with pytest.raises(UnreadableSample, match="3 of 202"):
        data.on_after_batch_transfer(Phased("sft", Batch((group,), ("c: broken",))), 0)


def test_wrong_arguments_are_refused_in_one_line(folders, tmp_path):
    cases: list[tuple[Any, str, str]] = [
        (lambda: SODDataModule(str(tmp_path / "nowhere")), "fit", "nowhere: no such folder"),
        (lambda: SODDataModule(folders["cosod"]), "fit", r"fit \(image/cow, image/dog\); name one of them"),
        (lambda: SODDataModule(folders["sod"]), "test", "no data to test on; give `test`"),
        (lambda: SODDataModule(), "fit", "no data to fit on; give `train`"),
        (lambda: SODDataModule(folders["sod"]), "predict", "not predict"),
        (lambda: SODDataModule(max_unreadable=2), "fit", "max_unreadable is a share"),
        (lambda: CoSODDataModule(group_size=1), "fit", "group_size"),
        (lambda: UnifiedDataModule({"depth": "x"}), "fit", "unknown task 'depth': use one of"),
        (lambda: UnifiedDataModule({"sod": folders["sod"]}, weights={"sis": 1}), "fit", "weights"),
        (lambda: SFTDataModule(str(tmp_path / "none.jsonl")), "fit", "no such file"),
    ]
    for make, stage, reason in cases:
        with pytest.raises((ValueError, OSError), match=reason) as error:
            make().setup(stage)
        assert "\n" not in str(error.value)


def test_the_command_line_knows_every_option(folders):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageGroupsDataModule, "data")
    for name, options in {
        "SODDataModule": {"train": folders["sod"], "batch_size": 3, "limit": 2, "sft": "x.jsonl"},
        "CoSODDataModule": {"train": folders["cosod"], "group_size": 4, "max_unreadable": 0.5},
        "UnifiedDataModule": {"train": {"sod": "a"}, "weights": {"sod": 1.0}, "steps_per_epoch": 7},
        "SFTDataModule": {"train": "x.jsonl", "seed": 5},
    }.items():
        config = {"data": {"class_path": f"lightning_sal.datamodules.{name}", "init_args": options}}
        parsed = parser.parse_object(config).data.init_args.as_dict()
        assert {key: parsed[key] for key in options} == options
        with pytest.raises(Exception, match="bach_size"):
            parser.parse_object({"data": {**config["data"], "init_args": {"bach_size": 1}}})
