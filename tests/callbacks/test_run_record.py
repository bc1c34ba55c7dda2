"""The record of a run refuses what would spoil a table; the table's own tests run it whole."""

from types import SimpleNamespace

import pytest

from lightning_sal.callbacks import RunRecord


def trainer(folder, *callbacks):
    return SimpleNamespace(default_root_dir=folder, world_size=1, callbacks=list(callbacks))


def test_a_second_record_is_refused(tmp_path):
    """`ablate` adds one, so a config that names one too would write the samples of another split over its own."""
    one, two = RunRecord(), RunRecord(split="test")
    with pytest.raises(ValueError, match="two RunRecords"):
        one.on_train_start(trainer(tmp_path, one, two), None)


def test_a_whole_run_is_not_written_over(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    record = RunRecord()
    with pytest.raises(FileExistsError, match="of an earlier run"):
        record.on_train_start(trainer(tmp_path, record), None)
