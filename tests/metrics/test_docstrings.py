"""The examples in the docstrings give the values that they state."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lightning_sal.metrics

MODULES = [found.name for found in pkgutil.walk_packages(lightning_sal.metrics.__path__, "lightning_sal.metrics.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_has_an_example() -> None:
    for package in (lightning_sal.metrics, importlib.import_module("lightning_sal.metrics.functional")):
        for name in package.__all__:
            assert ">>>" in (getattr(package, name).__doc__ or ""), name
