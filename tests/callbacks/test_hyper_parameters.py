"""The HParams tab, by the plugin's own reader over the files of runs."""

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
from tensorboard.util.tensor_util import make_ndarray

from lightning_sal.callbacks import HyperParameters, InterleavedSFT
from lightning_sal.callbacks.hyper_parameters import METRICS, NUMBERS, WORDS
from tests.modules.parts import cgpo, scenes, sft, trainer


def table(folder):
    """Run -> (status, hyper-parameters, metrics), and the columns, as the tab has them."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    context = TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder)))
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, allowed_statuses=statuses, aggregation_type=api_pb2.AGGREGATION_AVG
    )
    backend = backend_context.Context(context)
    groups = list_session_groups.Handler(RequestContext(), backend, "", request).run().session_groups
    rows = {}
    for group in groups:
        (session,) = group.sessions
        values = {name: value.number_value or value.string_value for name, value in group.hparams.items()}
        metrics = {metric.name.tag: metric.value for metric in session.metric_values}
        rows[session.name] = api_pb2.Status.Name(session.status), values, metrics
    metadata = backend.hparams_metadata(RequestContext(), "")
    experiment = backend.experiment_from_metadata(RequestContext(), "", True, metadata, [])
    columns = [info.name for info in experiment.hparam_infos], [info.name.tag for info in experiment.metric_infos]
    return rows, columns, multiplexer


def board(folder, name):
    return TensorBoardLogger(folder, name=None, version=name)


def test_runs_of_two_kinds_are_rows_of_one_table(tmp_path):
    torch.set_num_threads(1)
    options = {"max_steps": 2, "log_every_n_steps": 1}
    callbacks = [HyperParameters(), InterleavedSFT(rl_steps=1, sft_steps=1, warmup_sft=1)]
    run = trainer(tmp_path, logger=board(tmp_path, "cgpo"), callbacks=callbacks, **options)
    run.fit(cgpo(temperature=0.7, seed=3), datamodule=scenes())
    run = trainer(tmp_path, logger=board(tmp_path, "a_sft"), callbacks=[HyperParameters()], **options)
    run.fit(sft(), datamodule=scenes(streams=["sft"]))
    rows, columns, multiplexer = table(tmp_path)
    assert rows.keys() == {"cgpo", "a_sft"}  # no runs below them
    assert (set(columns[0]), columns[1]) == ({*NUMBERS, *WORDS}, [*METRICS])

    status, values, metrics = rows["cgpo"]
    assert status == "STATUS_SUCCESS"
    known = {
        "algorithm": "CGPO", "model": "tiny-scratch", "data": "ScenesDataModule", "optimizer": "AdamW",
        "clip": "(0.2, 0.2)", "lr": 1e-3, "batch_size": 6, "responses_per_prompt": 1,
        "updates_per_rollout": 1, "temperature": 0.7, "lora_rank": 4, "rl_steps": 1, "sft_steps": 1, "warmup_sft": 1,
        "max_new_tokens": 8, "max_steps": 2, "seed": 3,
    }  # fmt: skip
    assert {name: values[name] for name in known} == pytest.approx(known)
    for name in ("train/loss", "train/reward/mean", "train/response/malformed"):
        last = multiplexer.GetAccumulator("cgpo").Tensors(name)[-1]  # in which form the reader holds scalars too
        assert (metrics[name], last.step) == (pytest.approx(make_ndarray(last.tensor_proto).item()), 1)

    status, values, metrics = rows["a_sft"]
    assert (status, values["algorithm"]) == ("STATUS_SUCCESS", "SFT")
    assert "rl_steps" not in values
    assert metrics.keys() == {"train/loss"}
    saved = yaml.safe_load((tmp_path / "cgpo" / "hparams.yaml").read_text())
    assert (saved["algorithm"], saved["lr"]) == ("CGPO", 0.001)


class Failing(BoringModel):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            raise self.error
        self.log("train/loss", 2.5)
        return super().training_step(batch, batch_idx)


def fit(folder, module, *, callback=None, loggers=None):
    run = L.Trainer(
        max_steps=2, accelerator="cpu", logger=loggers or board(folder, "run"), log_every_n_steps=1,
        callbacks=[callback or HyperParameters()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    run.fit(module)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_a_run_that_did_not_get_to_its_end_is_marked_and_keeps_its_values(tmp_path, error):
    with pytest.raises((SystemExit, RuntimeError)):
        fit(tmp_path, Failing(error))
    rows, _, _ = table(tmp_path)
    status, values, metrics = rows["run"]
    assert status == "STATUS_FAILURE"
    assert values["optimizer"] == "SGD"
    assert metrics == {"train/loss": 2.5}


def test_paths_and_metrics_of_other_projects(tmp_path):
    module = BoringModel()
    module.hidden = 7
    callback = HyperParameters(
        {"width": "module.hidden", "depth": "module.depth"}, {"kind": "module.layer.bias.dtype"}, ["x"]
    )
    fit(
        tmp_path,
        module,
        callback=callback,
        loggers=[board(tmp_path, "run"), CSVLogger(tmp_path, name=None, version="csv")],
    )
    rows, columns, _ = table(tmp_path)
    assert rows["run"][1] == {"width": 7, "kind": "torch.float32"}
    assert columns == (["depth", "kind", "width"], ["x"])
    assert yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text())["width"] == 7
