# %% [markdown]
# # Audit a network and read the answer
#
# How far can an accuracy under attack be believed? The audit attacks the network with a battery of attacks, with and without gradients, and
# checks that the attacks themselves work. It takes any module from images to logits; spiking ones come with their encoder.

# %%
import os

from lightning import Trainer, seed_everything

from snn_sparsity import DigitsDataModule, IFNeuron, SEWResNet, SpikingClassifier, audit

EPOCHS = int(os.environ.get("EPOCHS", "3"))
IMAGES = int(os.environ.get("IMAGES", "1200"))
ATTACKED = int(os.environ.get("ATTACKED", "48"))

# %%
seed_everything(3407)
data = DigitsDataModule(train_samples=IMAGES, flip=False)
classifier = SpikingClassifier(SEWResNet(depth=18, pool="max", neuron=IFNeuron()))
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False)  # fmt: skip
trainer.fit(classifier, data)

# %% [markdown]
# The quick budget takes minutes. `budget="standard"` tries much harder.

# %%
images, labels = (part[:ATTACKED] for part in data.split("test"))
result = audit(classifier, images, labels, encoder=data.spike_encoder, eps=8 / 255, budget="quick")
print(result)

# %% [markdown]
# Two answers for each protocol, functions of the evidence alone: how good the attack under audit was, and whether the network's gradients
# mislead. Whoever doubts them finds every number behind them in `audit.json`, and a page with figures in `audit.html`.

# %%
folder = result.save("audits/digits")
print("written:", *sorted(path.name for path in folder.iterdir()))
