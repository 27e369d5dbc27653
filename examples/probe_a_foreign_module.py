# %% [markdown]
# # A probe on a LightningModule that is not ours
#
# Probes work on any LightningModule that maps images to logits, spiking or not, with any dataloader of images and labels. Nothing in the
# module changes, and training is the same bit for bit with and without them.

# %%
import os

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from snn_sparsity import GradientSparsity, MetricsCSV, Probe, read_run

EPOCHS = int(os.environ.get("EPOCHS", "3"))
IMAGES = int(os.environ.get("IMAGES", "256"))
RUN = "runs/foreign/seed_3407/0"

# %% [markdown]
# Somebody's module and data.


# %%
class Theirs(LightningModule):
    """A small convolutional network, as anybody writes one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(8 * 8 * 8, 2)

    def forward(self, images):
        """Return logits [N,K]."""
        return self.head(self.body(images).flatten(1))

    def training_step(self, batch, batch_idx):
        """Return the loss."""
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        """Log the accuracy."""
        images, labels = batch
        self.log("val/accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


seed_everything(3407)
labels = torch.arange(IMAGES) % 2
images = 0.5 * torch.rand(IMAGES, 3, 16, 16) + 0.5 * labels[:, None, None, None]
loaders = [DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=shuffle) for shuffle in (True, False)]

# %% [markdown]
# A probe of one's own is one method: named numbers, one for each image of the batch. Gradients are on, and all is put back afterwards.


# %%
class Confidence(Probe):
    """Probability of the true class, and the L2 norm of its gradient at the image."""

    def measure(self, context, batch):
        """Return values of a batch, [N] each."""
        x = batch.spikes.requires_grad_()  # plain images are one time step: [1,N,C,H,W]
        right = context.classifier(x).softmax(1).gather(1, batch.labels[:, None]).squeeze(1)
        (gradient,) = torch.autograd.grad(right.sum(), x)
        return {"probability": right.detach(), "gradient_norm": gradient[0].flatten(1).norm(dim=1)}


# %%
probes = [Confidence(max_samples=32), GradientSparsity(max_samples=32)]
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=probes, logger=MetricsCSV(RUN), enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
trainer.fit(Theirs(), *loaders)

# %%
run = read_run(RUN)
for name, shown in {"confidence/probability": "mean probability of the true class", "val/accuracy": "accuracy"}.items():
    print(f"{shown}: {run.curve(name)[1][-1]:.3f}")
for name, operation in run.operations("grad_zero/").items():
    print(f"{operation.path:8} {100 * run.curve(name)[1][-1]:5.1f} % zeros in the input gradient")
