# %% [markdown]
# # An encoder, a network and a dataset of your own
#
# Each is one small class. On the command line they work by their import path: `--model.network my_module.SmallNet`.

# %%
import os
from dataclasses import dataclass

import torch
from lightning import Trainer, seed_everything
from spikingjelly.activation_based import functional, layer
from torch import nn

from snn_sparsity import PGD, AdversarialAccuracy, IFNeuron, ImageSet, PixelCode, SpikeDataModule, SpikingClassifier, Splits

EPOCHS = int(os.environ.get("EPOCHS", "5"))
IMAGES = int(os.environ.get("IMAGES", "400"))

# %% [markdown]
# An encoder maps images [N,C,H,W] to spikes [T,N,C,H,W]. One that works pixel by pixel is a table, the code of each of 256 grey levels:
# the attack on pixels reads it.


# %%
class ThermometerEncoder(PixelCode):
    """Step t fires where the pixel is at least t+1 parts of T+1: the brighter, the more spikes, the early ones first."""

    def __init__(self, num_steps: int = 4) -> None:
        super().__init__(torch.arange(256)[:, None] >= torch.arange(1, num_steps + 1) * 255 / (num_steps + 1))


print(ThermometerEncoder()(torch.tensor([[[[0, 100, 255]]]], dtype=torch.uint8))[:, 0, 0, 0].int().tolist())

# %% [markdown]
# A network maps spikes [T,N,C,H,W] to outputs [T,N,K] and says its `num_classes`. Any module of SpikingJelly in multi-step mode will do.


# %%
class SmallNet(nn.Module):
    """One convolution, max pooling, one linear layer."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = layer.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = layer.BatchNorm2d(8)
        self.spikes = IFNeuron().build()
        self.pool = layer.MaxPool2d(4)
        self.linear = layer.Linear(8 * 4 * 4, num_classes)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        """Return outputs [T,N,K]."""
        return self.linear(self.pool(self.spikes(self.bn(self.conv(x)))).flatten(2))


# %% [markdown]
# A dataset is a datamodule with three members. All images are one uint8 tensor [N,3,32,32].


# %%
@dataclass(kw_only=True, eq=False)
class BrightOrDark(SpikeDataModule):
    """Noise that is bright (1) or dark (0)."""

    num_classes = 2
    class_names = ("dark", "bright")

    def load(self) -> Splits:
        """Return the training and the test set."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(2, (IMAGES + 64,), generator=generator)
        noise = torch.randint(0, 156, (len(labels), 3, 32, 32), generator=generator)
        images = (noise + 100 * labels[:, None, None, None]).to(torch.uint8)
        return Splits(ImageSet(images[:IMAGES], labels[:IMAGES]), ImageSet(images[IMAGES:], labels[IMAGES:]))


# %%
seed_everything(3407)
data = BrightOrDark(encoder=ThermometerEncoder())
attack = AdversarialAccuracy(name="pgd", attack=PGD(steps=3), space="spikes", max_samples=32)
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=[attack], logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
trainer.fit(SpikingClassifier(SmallNet()), data)
for name in ("val/accuracy", "pgd/accuracy"):
    print(f"{name}: {100 * trainer.callback_metrics[name].item():.1f} %")
