"""Datasets: datamodules that hand out SpikeBatch."""

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.data.arrays import ArrayDataModule
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.cifar import CIFARDataModule
from snn_sparsity.data.digits import DigitsDataModule
from snn_sparsity.data.image_folder import ImageFolderDataModule
from snn_sparsity.data.images import ImageSet, Splits

__all__ = [
    "ArrayDataModule",
    "CIFARDataModule",
    "DigitsDataModule",
    "ImageFolderDataModule",
    "ImageSet",
    "SpikeBatch",
    "SpikeDataModule",
    "Splits",
]
