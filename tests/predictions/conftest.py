from tests.datasets.conftest import save

__all__ = ["save"]
