# %% [markdown]
# # Attack one batch, in two protocols
#
# The same network, the same images, the same radius. What an attack may change decides what its number means.

# %%
import os

import torch
from lightning import Trainer, seed_everything

from snn_sparsity import PGD, CodeBookAscent, DigitsDataModule, ImageTarget, SEWResNet, SpikeTarget, SpikingClassifier

EPOCHS = int(os.environ.get("EPOCHS", "3"))
IMAGES = int(os.environ.get("IMAGES", "1200"))
ATTACKED = int(os.environ.get("ATTACKED", "32"))

# %%
seed_everything(3407)
data = DigitsDataModule(train_samples=IMAGES, flip=False)
classifier = SpikingClassifier(SEWResNet(depth=18, pool="max"))
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False)  # fmt: skip
trainer.fit(classifier, data)
classifier.eval()

# %% [markdown]
# A batch is 8-bit pixels. The phase code turns each pixel into ten spikes: its eight bits, and the first two again.

# %%
images, labels = (part[:ATTACKED] for part in data.split("test"))
pixels, encoder = images.float() / 255, data.spike_encoder
spikes = encoder(images).transpose(0, 1)  # [T,N,...] to [N,T,...]: attacks are batch first


def accuracy(target, x):
    """Share of the images that the target gets right."""
    return (target.judge(x).argmax(1) == labels).float().mean().item()


# %% [markdown]
# The paper's protocol changes the *spikes* by real numbers of at most 8/255. No encoder could have made such spikes.

# %%
paper = SpikeTarget(classifier, batch_norm="batch")
attacked = PGD(eps=8 / 255, alpha=0.01, steps=7)(paper, spikes, labels, torch.Generator().manual_seed(0))
print(f"clean  {100 * accuracy(SpikeTarget(classifier), spikes):5.1f} %")
print(f"spikes {100 * accuracy(paper, attacked):5.1f} %  PGD-7, the paper's protocol")

# %% [markdown]
# The strict protocol changes the *pixels*, by at most eight of 255 grey levels. Either number is an upper bound:
# a stronger attack may lower it.

# %%
strict = ImageTarget(classifier, encoder)
attacked = CodeBookAscent(eps=8 / 255, steps=10)(strict, pixels, labels, torch.Generator().manual_seed(0))
print(f"pixels {100 * accuracy(strict, attacked):5.1f} %  code-book ascent, 10 steps")
print(f"largest change of a pixel: {(255 * (attacked - pixels).abs().max()).round().int().item()} grey levels")
