"""Spread, participation ratio and principal components against numpy's eigenvalues; files and the picture of two runs."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.evaluation.embeddings import (
    EmbeddedResponses,
    compare_embeddings,
    participation_ratio,
    principal_components,
    read_embeddings,
    spread,
    text_hash,
    write_embeddings,
)


@pytest.mark.parametrize(("count", "width"), [(40, 7), (5, 30), (2, 3), (1, 4)])
def test_numbers_are_those_of_the_eigenvalues_of_the_covariance(count, width):
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(0)) * torch.arange(1, width + 1) + 3
    values = np.linalg.eigvalsh(np.cov(x.double().numpy().T, bias=True)).clip(0)
    assert spread(x) == pytest.approx(values.sum())
    expected = values.sum() ** 2 / (values**2).sum() if count > 1 else 0.0
    assert participation_ratio(x) == pytest.approx(expected)
    points, shares = principal_components(x)
    assert points.shape == (count, 2)
    largest = np.sort(values)[::-1][:2]
    np.testing.assert_allclose(points.square().mean(0), largest, atol=1e-9)
    np.testing.assert_allclose(shares, largest / values.sum() if count > 1 else 0, atol=1e-9)


def test_equal_directions_are_counted_and_no_spread_is_none():
    corners = torch.cat([torch.eye(5), -torch.eye(5)])
    assert participation_ratio(corners) == pytest.approx(5)
    assert participation_ratio(torch.ones(4, 3)) == spread(torch.ones(4, 3)) == 0


def test_the_sign_of_a_component_does_not_change_with_the_order_of_the_responses():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    points, _ = principal_components(x)
    turned, _ = principal_components(x.flip(0))
    torch.testing.assert_close(turned.flip(0), points)


def kept(folder, name, rows):
    rows = torch.tensor(rows)
    count = len(rows)
    words = ("sod",) * count, tuple(f"käy {n}" for n in range(count)), tuple(text_hash(str(n)) for n in range(count))
    responses = EmbeddedResponses(3, rows, torch.arange(count) / 10, *words)
    write_embeddings(folder / f"{name}.npz", responses)
    return folder / f"{name}.npz", responses


def test_files_give_back_what_was_written(tmp_path):
    path, written = kept(tmp_path, "one", [[1.0, 2.0], [3.0, 4.0]])
    found = read_embeddings(path)
    assert torch.equal(found.embeddings, written.embeddings)
    assert torch.equal(found.rewards, written.rewards)
    for name in ("step", "tasks", "keys", "hashes"):
        assert getattr(found, name) == getattr(written, name)


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04cut", "other"])
def test_another_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "x.npz"
    if content == "other":
        np.savez(path, rows=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz: not embeddings"):
        read_embeddings(path)


def test_two_runs_are_laid_into_one_plane(tmp_path):
    """The wide one has the spread by hand: 1 and 1 from its centre; the narrow one a quarter of that."""
    wide, _ = kept(tmp_path, "wide", [[0.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    more, _ = kept(tmp_path, "more", [[0.0, 2.0, 1.0], [2.0, 2.0, 1.0]])
    narrow, _ = kept(tmp_path, "narrow", [[5.0, 0.5, 0.0], [6.0, 0.5, 0.0]])
    found = compare_embeddings({"raw": [wide, more], "ranked": [narrow]}, tmp_path / "spread.png")
    assert found == {"raw": (2.0, pytest.approx(2.0)), "ranked": (0.25, pytest.approx(1.0))}
    assert np.asarray(Image.open(tmp_path / "spread.png").convert("L")).std() > 5
    other, _ = kept(tmp_path, "other", [[1.0, 2.0]])
    with pytest.raises(ValueError, match="one hidden size"):
        compare_embeddings({"raw": [wide], "other": [other]}, tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one file"):
        compare_embeddings({"raw": []}, tmp_path / "x.png")
