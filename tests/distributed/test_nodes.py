"""Two nodes of one process each, which share one folder and have a working directory each."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from lightning_sal.callbacks import EvaluationResults, FiniteGuard, PredictionWriter, RolloutWriter, SaveAdapter
from lightning_sal.callbacks.collapse_guard import CollapseGuard
from lightning_sal.modules import GRPO
from tests.callbacks.test_finite_guard import PerRank, batch
from tests.callbacks.test_prediction_writer import Foreign, listed, prediction
from tests.callbacks.test_rollout_writer import read
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import rl_module
from tests.modules.parts import POLICY, scenes, sft, trained, trainer

PREDICTIONS = 5


def on_nodes(*callbacks, **options):
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    where = {"strategy": "ddp", "devices": 1, "num_nodes": 2}
    return trainer(Path(), callbacks=list(callbacks), enable_checkpointing=saves, **where, **options)


def fit(*callbacks, **policy):
    """Two steps, the second on the images of the first; the weights after them."""
    module = rl_module(GRPO, policy=replace(POLICY, **policy))
    data = scenes(streams=["rl"], batch_size=1, steps_per_epoch=1)
    on_nodes(*callbacks, max_steps=2, max_epochs=2).fit(module, datamodule=data)
    return trained(module)


def predict(folder):
    outputs = [prediction(paths=(f"{i % 2}/{i // 2}.jpg",), key=str(i)) for i in range(PREDICTIONS)]
    loader = torch.utils.data.DataLoader(torch.arange(PREDICTIONS))
    on_nodes(PredictionWriter(folder)).predict(Foreign(outputs), loader, return_predictions=False)


def evaluate(folder):
    data = scenes(streams=["sft"], batch_size=1, test_size=3)
    on_nodes(EvaluationResults(folder, "a")).test(sft(), datamodule=data, verbose=False)


def stop():
    on_nodes(FiniteGuard(Path("replay")), max_steps=3).fit(
        PerRank(), torch.utils.data.DataLoader([batch(1)] * 6, batch_size=None)
    )


def unseen():
    """Why a rollback to a checkpoint on the disk of one node alone is none."""
    guard, run = CollapseGuard({"train/loss": (0, 1)}, action="rollback"), on_nodes()
    run.strategy.setup_environment()
    guard.checkpoints = [str(Path("checkpoints", "step=2.ckpt"))]
    return guard._roll_back(run, before=100, why="")


def refused(work, *args):
    try:
        work(*args)
    except (FileExistsError, ValueError) as error:
        return str(error)
    return None


def work(world_size, rank, shared):
    os.environ.update(LOCAL_RANK="0", GROUP_RANK=str(rank), LOCAL_WORLD_SIZE="1")
    home = shared / f"node-{rank}"
    (home / "replay").mkdir(parents=True)
    os.chdir(home)
    saver = ModelCheckpoint("checkpoints", filename="{step}", every_n_train_steps=1)
    weights = fit(RolloutWriter(Path("rollouts")), SaveAdapter(), saver, feature_cache="features")
    fit(RolloutWriter(shared / "rollouts"), feature_cache=str(shared / "features"))
    if rank == 1:
        Path("replay", "step=1-rank=1.replay").write_text("of an earlier run")
    found = {
        "weights": weights,
        "rollouts": refused(fit, RolloutWriter(shared / "rollouts")),
        "replay": refused(stop),
        "predictions": [refused(predict, Path("predictions")), refused(predict, shared / "predictions")],
        "results": [refused(evaluate, Path("results")), refused(evaluate, shared / "results")],
        "rollback": unseen(),
    }
    torch.save(found, shared / f"{rank}.pt")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    in_processes(work, (2,), folder)
    return folder


@pytest.fixture(scope="module")
def found(shared):
    return [torch.load(shared / f"{rank}.pt", weights_only=True) for rank in range(2)]


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_first_node_has_checkpoints_with_adapters_and_all_have_the_weights(shared, found):
    assert names(shared / "node-0" / "checkpoints") == ["step=2.adapter", "step=2.ckpt"]
    assert names(shared / "node-1" / "checkpoints") == []
    for name, weight in found[0]["weights"].items():
        assert found[1]["weights"][name].equal(weight), name
    saved = load_file(shared / "node-0" / "checkpoints" / "step=2.adapter" / "adapter_model.safetensors")
    assert len(saved) == len(found[0]["weights"])


def test_features_are_kept_on_each_node_or_once(shared):
    own = [names(shared / f"node-{rank}" / "features") for rank in range(2)]
    together = names(shared / "features")
    assert all(own)
    assert together == sorted({*own[0], *own[1]})
    assert all(name.endswith(".safetensors") for name in together)


def test_each_process_writes_its_rollouts_wherever_its_folder_is(shared, found):
    for rank in range(2):
        for folder in (shared / f"node-{rank}" / "rollouts", shared / "rollouts"):
            lines = read(folder / f"rollouts-{rank}.jsonl")
            assert {line["rank"] for line in lines} == {rank}
            assert {line["step"] for line in lines} == {0, 1}
        assert names(shared / f"node-{rank}" / "rollouts") == [f"rollouts-{rank}.jsonl"]
        assert "rollouts-0.jsonl: rollouts of an earlier run are there already" in found[rank]["rollouts"]


def test_replay_files_have_names_that_are_free_on_all_nodes(shared, found):
    assert names(shared / "node-0" / "replay") == ["step=1-rank=0-2.replay"]
    assert names(shared / "node-1" / "replay") == ["step=1-rank=1-2.replay", "step=1-rank=1.replay"]
    for rank in range(2):
        assert "rank 1: loss inf" in found[rank]["replay"]
        assert "step=1-rank=1-2.replay" in found[rank]["replay"]


@pytest.mark.parametrize("what", ["predictions", "results"])
def test_what_one_process_joins_is_refused_in_folders_that_are_not_shared(what, shared, found):
    for rank in range(2):
        apart, together = found[rank][what]
        assert apart == f"{what}: rank 1 sees another folder there than rank 0: name one that all nodes share"
        assert together is None
        assert names(shared / f"node-{rank}" / what) == []


def test_two_processes_leave_one_list_in_the_order_of_the_data(shared, found):
    lines = read(shared / "predictions" / "predictions.jsonl")
    assert [line["key"] for line in lines] == list("01234")
    files = listed(lines)
    assert len(set(files)) == len(files) == 2 * PREDICTIONS
    assert {path.name for path in (shared / "predictions").iterdir()} == {*files, "predictions.jsonl"}


def test_a_checkpoint_that_one_node_lacks_is_not_gone_back_to(found):
    for rank in range(2):
        assert "checkpoints/step=2.ckpt is not seen by all nodes" in found[rank]["rollback"]
