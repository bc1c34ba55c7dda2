"""The accelerator that is not there keeps CUDA's rules, and says whose line breaks one."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_sal.objectives import cgpo_advantages
from tests.device import pretend
from tests.device.rules import BrokenRule, broken


@pytest.fixture
def there():
    return pretend.device()


def refused(function, match):
    with pytest.raises(BrokenRule, match=match):
        function()
    assert len(broken) == 1
    broken.clear()


def test_the_line_of_the_package_is_named(there):
    refused(
        lambda: cgpo_advantages(torch.ones(2, device=there), torch.ones(2)),
        r"lightning_sal/objectives/advantages.py:\d+: aten.sub.Tensor of two devices: \(2,\) .* on pretend:0, \(2,\)",
    )


def test_tensors_of_two_devices_do_not_meet(there):
    mine, theirs = torch.arange(6.0, device=there).view(2, 3), torch.ones(2, 3)
    index = torch.tensor([0])
    for function in (
        lambda: mine * theirs,
        lambda: mine.add_(theirs),
        lambda: theirs.add_(mine),
        lambda: torch.cat([mine, theirs]),
        lambda: F.linear(theirs, mine),
        lambda: torch.zeros(2, device=there).index_add_(0, index, torch.ones(1, device=there)),
        lambda: mine.gather(1, torch.zeros(2, 1, dtype=torch.long)),
        lambda: torch.cat([mine[0, 0, None], torch.tensor([1.0])]),
        lambda: theirs[index.to(there)],
    ):
        refused(function, "of two devices")


def test_numbers_and_indices_of_the_cpu_are_taken(there):
    tensor = torch.arange(6.0, device=there).view(2, 3)
    assert (tensor * torch.tensor(2.0) + 1).tolist() == [[1, 3, 5], [7, 9, 11]]
    assert tensor[torch.tensor([1])].tolist() == [[3, 4, 5]]
    assert tensor.masked_fill(tensor > 1, torch.tensor(0.0)).tolist() == [[0, 1, 0], [0, 0, 0]]
    tensor[0] = torch.tensor(9.0)
    tensor.copy_(tensor.cpu())
    assert tensor.device == there
    assert tensor.tolist() == [[9, 9, 9], [3, 4, 5]]


def test_a_backward_pass_names_the_line_that_started_it(there):
    class Foreign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.ones(3)

    loss = Foreign.apply(torch.ones(3, device=there, requires_grad=True)).sum()
    refused(loss.backward, r"test_pretend.py:\d+ \(backward pass of ForeignBackward\): aten.mul.Tensor of two devices")


def test_a_change_of_shape_in_place_is_followed(there):
    """As in the product of a vector and a matrix."""
    vector, matrix = torch.arange(2.0, device=there), torch.arange(6.0, device=there).view(2, 3)
    assert (vector @ matrix).tolist() == [3, 4, 5]
    assert matrix[None].squeeze_(0).shape == (2, 3)


def test_generators_belong_to_a_device(there):
    draws = [torch.rand(3, generator=torch.Generator(there).manual_seed(1), device=there).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    assert torch.Generator(there).device == there
    assert torch.Generator().device.type == "cpu"
    refused(lambda: torch.rand(3, generator=torch.Generator(), device=there), "a generator of the CPU")


def test_numpy_sees_no_tensor(there):
    for function in (lambda: torch.ones(2, device=there).numpy(), lambda: np.asarray(torch.ones(2, device=there))):
        with pytest.raises((TypeError, RuntimeError)):
            function()


def test_what_cuda_has_no_kernel_for(there):
    bytes_ = torch.zeros(1, 3, 4, 4, dtype=torch.uint8, device=there)
    refused(lambda: F.interpolate(bytes_, (2, 2), mode="bilinear"), "upsample_bilinear2d.* of torch.uint8")
    whole = torch.ones(2, 2, dtype=torch.long, device=there)
    refused(lambda: whole @ whole, "of torch.int64")
    refused(lambda: F.max_pool2d(bytes_, 2), "max_pool2d.* of torch.uint8")
    refused(lambda: torch.histogram(whole[0].float(), 2), "histogram.bin_ct has no kernel but those of the CPU")


def test_what_cuda_does_in_no_fixed_order(there):
    floats = torch.ones(3, device=there)
    assert floats.cumsum(0).tolist() == [1, 2, 3]
    torch.use_deterministic_algorithms(True)
    try:
        assert floats.long().cumsum(0).tolist() == [1, 2, 3]
        refused(lambda: floats.cumsum(0), "cumsum.* in no fixed order")
        assert floats.median() == 1
        assert torch.bincount(floats.long()).tolist() == [0, 3]
        planes = torch.ones(1, 1, 4, 4, device=there, requires_grad=True)
        F.interpolate(planes, (2, 2), mode="bilinear").sum().backward()  # in other operations, whose order is fixed
        pool = torch.ops.aten._adaptive_avg_pool2d_backward
        for function, name in (
            (lambda: torch.bincount(floats.long(), floats), "bincount"),
            (lambda: floats.median(0), "median.dim"),
            (lambda: floats.kthvalue(1), "kthvalue"),
            (lambda: floats.scatter_reduce(0, floats.long(), floats, "amax"), "scatter_reduce"),
            (lambda: pool(planes.detach()[..., :2, :2], planes.detach()), "_adaptive_avg_pool2d_backward"),
        ):
            refused(function, f"{name}.* in no fixed order")
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_gives_the_numbers_of_the_cpu(there):
    """Forward, backward, mixed precision, an optimiser, casts of a module: all as on the CPU, which does them."""

    def trained(device):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        inputs = torch.arange(6.0).view(2, 3).to(device)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                hidden = model[0](inputs)
                assert hidden.dtype == torch.bfloat16
                loss = model[1:](hidden).float().pow(2).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.inference_mode():
            return model.double()(inputs.double()).add_(1)

    here = trained(there)
    assert here.device == there
    assert torch.equal(here.cpu(), trained(torch.device("cpu")))


def test_saved_tensors_name_the_device(there):
    file, cpu = io.BytesIO(), torch.device("cpu")
    torch.save({"weight": torch.nn.Parameter(torch.ones(2, device=there)).detach()}, file)
    for location, device in ((None, there), ("cpu", cpu), (lambda storage, _: storage, cpu)):
        file.seek(0)
        loaded = torch.load(file, weights_only=True, map_location=location)["weight"]
        assert loaded.device == device
        assert loaded.tolist() == [1, 1]
