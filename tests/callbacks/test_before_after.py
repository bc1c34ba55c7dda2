"""Before and after a run, and the control beside it."""

import torch

from lightning_sal.callbacks import BeforeAfter, InterleavedSFT
from lightning_sal.evaluation.comparison import read_arms
from tests.modules.parts import cgpo, scenes, trained, trainer


def run(folder, callback=None):
    torch.set_num_threads(1)
    callbacks = [InterleavedSFT(rl_steps=1, sft_steps=1), *([callback] if callback else [])]
    module = cgpo()
    trainer(folder, max_steps=4, callbacks=callbacks).fit(module, datamodule=scenes())
    return trained(module)


def test_controls_leave_the_run_as_it_would_be_without_them(tmp_path, capsys):
    compared = run(tmp_path, BeforeAfter(tmp_path / "out", panels=2, control_steps=2, equal_time=True))
    plain = run(tmp_path)
    assert all(torch.equal(compared[name], weight) for name, weight in plain.items())
    arms = read_arms(tmp_path / "out" / "samples.jsonl")
    assert list(arms) == ["start", "SFT only, 2 steps", "CGPO", "SFT only, equal time"]
    assert {len(samples) for samples in arms.values()} == {7}
    assert (tmp_path / "out" / "gallery.png").is_file()
    printed = capsys.readouterr().out
    assert "SFT only, 2 steps" in printed
    assert str(tmp_path / "out" / "gallery.png") in printed


def test_an_earlier_gallery_is_not_overwritten(tmp_path):
    for _ in range(2):
        run(tmp_path, BeforeAfter(tmp_path / "out", panels=1))
    assert (tmp_path / "out_2" / "samples.jsonl").is_file()
