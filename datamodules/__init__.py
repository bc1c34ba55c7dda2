"""Lightning datamodules: thin shells over `lightning_sal.datasets`."""

from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.datamodules.benchmarks import BenchmarksDataModule
from lightning_sal.datamodules.folders import CoSODDataModule, SISDataModule, SODDataModule, UnifiedDataModule
from lightning_sal.datamodules.predict import PredictDataModule
from lightning_sal.datamodules.scenes import ScenesDataModule
from lightning_sal.datamodules.sft import SFTDataModule

__all__ = [
    "BenchmarksDataModule",
    "CoSODDataModule",
    "ImageGroupsDataModule",
    "PredictDataModule",
    "SFTDataModule",
    "SISDataModule",
    "SODDataModule",
    "ScenesDataModule",
    "UnifiedDataModule",
]
