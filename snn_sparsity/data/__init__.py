"""Datasets: datamodules that hand out SpikeBatch."""

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.cifar import CIFARDataModule
from snn_sparsity.data.digits import DigitsDataModule
from snn_sparsity.data.image_folder import ImageFolderDataModule

__all__ = ["CIFARDataModule", "DigitsDataModule", "ImageFolderDataModule", "SpikeBatch", "SpikeDataModule"]
