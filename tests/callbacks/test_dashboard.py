"""The layout of the Custom Scalars tab, read back from the files of runs, and the names that docs/tensorboard.md lists."""

import re
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from lightning_sal.callbacks import (
    BeforeAfter,
    CollapseGuard,
    Curves,
    Dashboard,
    EmbeddingSpread,
    HyperParameters,
    InterleavedSFT,
    Reliability,
    ResponseTypes,
    RolloutMonitor,
    RolloutPanels,
)
from lightning_sal.callbacks.dashboard import categories
from lightning_sal.modules import DAPO, GRPO, SegmenterFineTuning
from tests.modules.parts import cgpo, scenes, sft, trainer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "tensorboard.md"


def events(folder):
    """All that a run wrote."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0, "histograms": 0})
    return read.Reload()


def layout(read):
    """Category -> chart -> names."""
    (written,) = read.Tensors(metadata.CONFIG_SUMMARY_TAG)  # once
    proto = layout_pb2.Layout.FromString(written.tensor_proto.string_val[0])
    found = {}
    for category in proto.category:
        charts = {chart.title: list(chart.multiline.tag) for chart in category.chart if chart.multiline.tag}
        for chart in category.chart:
            for series in chart.margin.series:
                charts[chart.title] = [re.escape(name) + "$" for name in (series.value, series.lower, series.upper)]
        found[category.title] = charts
    return found


def board(folder):
    return TensorBoardLogger(folder, name=None, version="")


@pytest.fixture(scope="module")
def cgpo_run(tmp_path_factory):
    """A CGPO run with interleaved SFT, validation and every callback that shows something in TensorBoard."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cgpo")
    callbacks = [
        InterleavedSFT(rl_steps=3, sft_steps=1),
        BeforeAfter(folder / "gallery", panels=1, control=True),
        RolloutMonitor(histogram_every_n_steps=2),
        RolloutPanels(every_n_steps=2),
        ResponseTypes(every_n_steps=2),
        Reliability(every_n_steps=2),
        EmbeddingSpread(every_n_steps=2),
        CollapseGuard({"train/loss": (-1e9, 1e9)}, action="rollback"),
        Curves(every_n_steps=2),
        LearningRateMonitor(),
        Dashboard(),
        HyperParameters(),
        ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1),
    ]
    options = {"logger": board(folder), "callbacks": callbacks, "log_every_n_steps": 1, "limit_val_batches": None}
    fit = trainer(folder, max_steps=4, val_check_interval=4, enable_checkpointing=True, **options)
    fit.fit(cgpo(), datamodule=scenes(mistakes=1))
    return events(folder)


def test_every_line_of_a_cgpo_run_shows_what_was_logged(cgpo_run):
    shown = layout(cgpo_run)
    assert [*shown] == [
        part.title for part in categories() if part.title not in ("Loss", "Reference", "Dynamic sampling")
    ]
    logged = cgpo_run.Tags()["scalars"]
    empty = [
        name
        for charts in shown.values()
        for names in charts.values()
        for name in names
        if not any(re.match(name, tag) for tag in logged)  # as TensorBoard matches them
    ]
    assert empty == []


def test_every_scalar_of_training_is_in_a_chart(cgpo_run):
    patterns = [name for charts in layout(cgpo_run).values() for names in charts.values() for name in names]
    tasks = re.compile("train/(sod|sis|cosod)/")
    logged = [tag for tag in cgpo_run.Tags()["scalars"] if tag.startswith("train/") and not tasks.match(tag)]
    left_out = {tag for tag in logged if not any(re.match(name, tag) for name in patterns)}
    assert left_out == {"train/reward/std", "train/rollbacks"}


@pytest.mark.parametrize(
    ("module", "options", "category", "name"),
    [
        (GRPO, {"beta": 0.1}, "Reference", "train/kl"),
        (DAPO, {"prompts_per_step": 2}, "Dynamic sampling", "train/dynamic_sampling/rounds"),
    ],
)
def test_what_one_algorithm_logs_has_a_chart_there_alone(tmp_path, module, options, category, name):
    torch.manual_seed(0)
    made = module(**{**cgpo_options(), "responses_per_prompt": 2, **options})
    fit = trainer(tmp_path, max_steps=1, logger=board(tmp_path), log_every_n_steps=1, callbacks=[Dashboard()])
    fit.fit(made, datamodule=scenes(batch_size=4, streams=["rl"]))
    read = events(tmp_path)
    only = {"Reference", "Dynamic sampling"} & layout(read).keys()
    assert only == {category}
    ((pattern,),) = layout(read)[category].values()
    assert [tag for tag in read.Tags()["scalars"] if re.match(pattern, tag) and tag == name] == [name]


def cgpo_options():
    made = cgpo()
    return {"policy": made.policy_config, "segmenter": made.segmenter, "max_new_tokens": 4}


@pytest.mark.parametrize(
    ("make", "validate", "categories"),
    [(sft, 0, ["Training"]), (SegmenterFineTuning, 1, ["Validation", "Training"])],
)
def test_a_run_without_rollouts_has_no_charts_of_them(tmp_path, make, validate, categories):
    options = {"logger": board(tmp_path), "log_every_n_steps": 1, "callbacks": [RolloutMonitor(), Dashboard()]}
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=validate, num_sanity_val_steps=0, **options)
    fit.fit(make(), datamodule=scenes(streams=["sft"], batch_size=2, steps_per_epoch=1, val_size=2))
    read = events(tmp_path)
    shown = layout(read)
    assert [*shown] == categories
    assert all(
        any(re.match(name, tag) for tag in read.Tags()["scalars"])
        for charts in shown.values()
        for names in charts.values()
        for name in names
    )


def test_other_projects_add_charts_of_their_own_and_other_loggers_get_none(tmp_path):
    loggers = [board(tmp_path), CSVLogger(tmp_path, name=None, version="csv")]
    fit = trainer(tmp_path, max_steps=1, logger=loggers, callbacks=[Dashboard({"Mine": {"A": ["a/.*"]}})])
    fit.fit(BoringModel())
    shown = layout(events(tmp_path))
    assert [*shown] == ["Mine", "Loss"]
    assert shown["Mine"] == {"A": ["a/.*"]}


def test_one_process_writes_the_layout(tmp_path):
    other = SimpleNamespace(is_global_zero=False)  # it has no more than this, and nothing is asked of it
    Dashboard().on_fit_start(other, L.LightningModule())


def test_documented_names_are_those_that_a_run_logs(cgpo_run):
    """Every name of a run is in the table, and every name of the table that belongs to a CGPO run is logged by it."""
    tags = cgpo_run.Tags()
    texts = [tag.removesuffix("/text_summary") for tag in tags["tensors"] if tag.endswith("/text_summary")]
    logged = {*tags["scalars"], *tags["images"], *tags["histograms"], *texts} - {"epoch"}
    documented = documented_names()
    undocumented = {tag for tag in logged if not any(re.fullmatch(name, tag) for name in documented)}
    assert undocumented == set()
    of_others = re.compile(
        "train/kl|train/calibration/.*|train/seconds/attribute|train/dynamic_sampling/.*|train/telling/.*|train/reward/.*_(unknown|rank)|data/unreadable|val/s_measure|val/giou|"
        "val/ciou|val/.*/accuracy|train/reward/(alignment|pointing|elsewhere|centred|chance|brevity|noise)|maps/.*|"
        "train/reward/(tags|json|look|non_repeat|box|count|point)"
    )
    missing = {name for name in documented if not any(re.fullmatch(name, tag) for tag in logged)}
    assert {name for name in missing if not of_others.fullmatch(name.replace("\\", ""))} == set()


def documented_names():
    """Names in the first column of the table, as patterns: <...> stands for a word, a trailing ... for anything."""
    rows = re.findall(r"^\| (`.+?) \|", DOCS.read_text(), re.MULTILINE)
    names = set()
    for row in rows:
        first, *others = re.findall("`(.+?)`", row)
        stem = first.rpartition("/")[0]
        names |= {first, *(name if "/" in name else f"{stem}/{name}" for name in others)}
    return {re.sub("<.+?>", "[^/]+", re.escape(name).replace(re.escape("..."), ".+")) for name in names}
