# %% [markdown]
# # Train a spiking ResNet, watch its gradients, read the curves
#
# Ten minutes on two CPU cores. In Python, and with fewer probes, much like what `snn-sparsity fit --config demo` does.

# %%
import os

from lightning import Trainer, seed_everything

from snn_sparsity import DigitsDataModule, GradientSparsity, MetricsCSV, SEWResNet, SpikingClassifier, figure_of, read_run

EPOCHS = int(os.environ.get("EPOCHS", "5"))
IMAGES = int(os.environ.get("IMAGES", "1200"))
RUN = "runs/example/seed_3407/0"

# %% [markdown]
# Handwritten digits need no download. A probe measures the network after every epoch and leaves no trace in its training.

# %%
seed_everything(3407)
data = DigitsDataModule(train_samples=IMAGES, test_samples=max(16, IMAGES // 8))
classifier = SpikingClassifier(SEWResNet(depth=18, pool="max"))
zeros = GradientSparsity(name="sparsity", max_samples=16)
trainer = Trainer(
    max_epochs=EPOCHS, accelerator="cpu", callbacks=[zeros], logger=MetricsCSV(RUN), enable_checkpointing=False, log_every_n_steps=1,
    enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(classifier, data)

# %% [markdown]
# `metrics.csv` holds one value a row. `read_run` reads it by name and epoch.

# %%
run = read_run(RUN)
epochs, accuracy = run.curve("val/accuracy")
for epoch, share in zip(epochs, accuracy, strict=True):
    print(f"epoch {epoch}: {100 * share:.1f} % of the held-out images are right")

# %% [markdown]
# Where do the gradients vanish? A point is an operation, by its depth in the network: above, how many entries of the gradient at its input
# are exactly zero; below, how long that gradient is. At the input of max pooling 75 % are zero by geometry alone: it halves both sides of
# the map, and each window hands its gradient to one position.

# %%
figure = figure_of("gradients", [run])
figure.savefig(f"{RUN}/gradients.png")
for name, operation in run.operations("grad_zero/").items():
    if operation.kind in ("input", "pool"):
        _, shares = run.curve(name)
        print(f"{operation.path:8} {100 * shares[-1]:5.1f} % zeros in the input gradient at the last epoch")
