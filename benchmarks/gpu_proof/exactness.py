"""Versions, the kernel that runs, and whether a GPU's numbers are those of a CPU."""

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Trainer
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

import snn_sparsity
from benchmarks.gpu_proof.claims import Claim, Place, judged, measured, not_run
from benchmarks.gpu_proof.images import NoiseImages
from snn_sparsity.attacks import FGSM, PGD, Attack, CodeBookAscent
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.gradient_rules import PoolGradient
from snn_sparsity.networks import LeakyNeuron, SEWResNet, SpikingResNet
from snn_sparsity.networks.gpu import KERNELS, settle_kernels
from snn_sparsity.networks.leaky import LeakyNode
from snn_sparsity.networks.neurons import FusedIFNode, FusedLIFNode, FusedParametricLIFNode
from snn_sparsity.numerics import numerics, settle_numerics
from snn_sparsity.probes import AdversarialAccuracy, Probe
from snn_sparsity.validation import InputError

PACKAGES = ("torch", "triton", "lightning", "spikingjelly", "torchvision", "torchmetrics", "numpy", "jsonargparse")
GRADIENT = 1e-5
"""Relative distance of two gradients that are the same but for the order of operations."""


# Where this is ------------------------------------------------------------------------------------------------------------


def versions(place: Place) -> Iterator[Claim]:
    """Say what this is, and which kernel runs the neurons."""
    packages = {name: _version(name) for name in PACKAGES}
    yield measured("versions", ", ".join(f"{name} {number}" for name, number in packages.items()), python=sys.version, **packages)
    yield measured("system", f"{platform.platform()}, Python {platform.python_version()}")
    for name, command in {
        "C compiler": ["cc", "--version"],
        "CUDA compiler": ["nvcc", "--version"],
        "driver": ["nvidia-smi", "-L"],
    }.items():
        yield measured(name, _told(command))
    if not place.gpu:
        return
    properties: Any = torch.cuda.get_device_properties(0)
    yield measured("driver version", _told(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]))
    yield measured(
        "GPU",
        f"{properties.name}, sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB, "
        f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
    )
    settle_kernels(torch.device("cuda", 0))
    chosen = {name: _chosen(name) for name in KERNELS}
    yield judged(
        "kernel of the neurons",
        "Triton's, after a trial launch",
        f"chosen: {chosen}",
        chosen["if_"] == "triton",
        "everything works on PyTorch's loop, slower. For Triton install gcc and Python's headers (python3-dev); the log has one line why",
        **chosen,
    )
    SpikingClassifier(nn.Linear(1, 1))
    settled = numerics()
    off = not settled["tf32_convolutions"] and not settled["tf32_products"]
    yield judged("TF32", "off for convolutions and products, until asked for", str(settled), off, "call settle_numerics() first", **settled)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _told(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return f"no {command[0]}"
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    lines = [line for line in run.stdout.splitlines() if line.strip()]
    return next((line for line in lines if "release" in line), (lines or ["-"])[0])


def _chosen(name: str) -> str:
    """Return which implementation SpikingJelly runs; before a first launch it has not chosen."""
    selection: Any = importlib.import_module(f"spikingjelly._ops.{name}")._selection
    for found in selection._selections.values():
        implementation = getattr(found, "name", None)
        if implementation:
            return str(implementation)
    return f"{selection._requested}, not launched"


# Neurons ------------------------------------------------------------------------------------------------------------------

SURROGATES = (surrogate.ATan, surrogate.Sigmoid, surrogate.PiecewiseQuadratic, surrogate.Rect)
Layer = Callable[[], nn.Module]


def _spikingjelly(kind: type[nn.Module], **more: Any) -> list[tuple[str, Layer]]:
    return [
        (
            f"{kind.__name__} {shape.__name__}, {'soft' if reset is None else 'hard'} reset{', detached' if detach else ''} {more or ''}",
            partial(
                lambda settings, shape: kind(surrogate_function=shape(), **settings),
                {"v_reset": reset, "detach_reset": detach, **more},
                shape,
            ),
        )
        for shape in SURROGATES
        for reset in (0.0, None)
        for detach in (True, False)
    ]


def _leaky() -> list[tuple[str, Layer]]:
    recipes = [LeakyNeuron(leak=0.9, surrogate=name) for name in ("triangle", "linear", "exponential", "rect", "sigmoid", "atan")]
    recipes += [
        LeakyNeuron(strict=True),
        LeakyNeuron(leak=0.9, reset="subtract", learnt=["threshold", "leak", "width"]),
        LeakyNeuron(reset="subtract", delayed=True),
    ]
    return [(str(recipe), recipe.build) for recipe in recipes]


MADE: dict[type[nn.Module], list[tuple[str, Layer]]] = {
    FusedIFNode: _spikingjelly(FusedIFNode),
    FusedLIFNode: [
        case for tau, decay in ((2.0, True), (2.0, False), (1.7, True)) for case in _spikingjelly(FusedLIFNode, tau=tau, decay_input=decay)
    ],
    FusedParametricLIFNode: [
        case for decay in (True, False) for case in _spikingjelly(FusedParametricLIFNode, init_tau=2.0, decay_input=decay)
    ],
    LeakyNode: _leaky(),
}
"""How a neuron of each kind is made; a kind that is not here fails the proof."""

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
}


def neurons(place: Place) -> Iterator[Claim]:
    """Compare spikes and gradients of every kind of neuron with the CPU's; without a GPU, one layout in memory with another."""
    settle_kernels(torch.device(place.device))
    for kind in (kind for base in (neuron.BaseNode, neuron.SimpleBaseNode) for kind in _classes(base)):
        if kind not in MADE:
            yield judged(
                f"neuron {kind.__name__}", "proved", "not in MADE", False, "add how it is made to benchmarks/gpu_proof/exactness.py"
            )
            continue
        cases = MADE[kind] if place.gpu else MADE[kind][:3]
        for layout, arrange in LAYOUTS.items():
            yield _neuron(place, kind.__name__, layout, arrange, cases)


def _classes(base: type[Any]) -> list[type[Any]]:
    """Return every class of a kind that the package defines, but for what others are built on."""
    for info in pkgutil.walk_packages(snn_sparsity.__path__, "snn_sparsity."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    found: dict[str, type[Any]] = {}
    left = [base]
    while left:
        for child in left.pop().__subclasses__():
            left.append(child)
            if child.__module__.startswith("snn_sparsity.") and not child.__subclasses__():
                found[child.__name__] = child
    return [found[name] for name in sorted(found)]


def _neuron(place: Place, kind: str, layout: str, arrange: Callable[[Tensor], Tensor], cases: list[tuple[str, Layer]]) -> Claim:
    flips, spikes, far, broken = {}, 0, {}, {}
    for name, make in cases:
        torch.manual_seed(1)
        x, g = torch.randn(10, 3, 16, 6, 6) + 0.3, torch.randn(10, 3, 16, 6, 6)
        try:
            ours, gradient = _spikes(make(), x, g, "cpu")
            theirs, other = _spikes(make(), arrange(x), arrange(g), place.device)
        except Exception as error:  # noqa: BLE001  # whatever a kernel raises, the other kinds are still to be tried
            broken[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        spikes += ours.numel()
        if different := int((ours != theirs).sum()):
            flips[name] = different
        distance = float((gradient - other).norm() / gradient.norm().clamp(min=1e-30))
        # A spike that flips changes the gradient: told once.
        if distance > GRADIENT and not different:
            far[name] = distance
    found = (
        f"{len(cases)} settings, {spikes} spikes: {sum(flips.values())} differ; gradients further apart than {GRADIENT:g}: {far or 'none'}"
    )
    found += f"; flips: {flips}" if flips else ""
    found += f"; raised: {broken}" if broken else ""
    holds = not (flips or far or broken)
    remedy = "see which settings; SJ_IF_CUDA_IMPLEMENTATION=torch (SJ_LIF_..., SJ_PLIF_...) tells a kernel's fault from a rounding"
    expected = "spikes bit for bit those of the CPU, gradients within 1e-5"
    return judged(f"neuron {kind}, {layout}", expected, found, holds, remedy, flips=flips, far=far, broken=broken)


def _spikes(layer: nn.Module, x: Tensor, g: Tensor, device: str) -> tuple[Tensor, Tensor]:
    layer.step_mode = "m"
    layer.to(device)
    # Moving keeps the strides of what has no gaps.
    x = x.to(device).requires_grad_()
    spikes = layer(x)
    (gradient,) = torch.autograd.grad(spikes, x, g.to(device))
    return spikes.detach().cpu(), gradient.cpu()


# Networks -----------------------------------------------------------------------------------------------------------------

CASES: dict[str, type[nn.Module]] = {"sew18_max": SEWResNet, "spk18_max": SpikingResNet}
FLIPS, LOGITS = 1e-5, 1e-3


def networks(place: Place) -> Iterator[Claim]:
    """Compare whole networks with the CPU's, with TF32 off and on, and with the authors' numbers where they are at hand."""
    for case, kind in CASES.items():
        torch.manual_seed(0)
        classifier = SpikingClassifier(kind(depth=18, num_classes=10, pool="max")).eval()
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        spikes, labels = PhaseEncoder(num_steps=10 if place.gpu else 2)(images), torch.arange(4)
        reference = _network(classifier, spikes, labels)
        for tf32 in (False, True) if place.gpu else (False,):
            settle_numerics(tf32)
            settle_kernels(torch.device(place.device))
            found = _network(classifier.to(place.device), spikes.to(place.device), labels.to(place.device))
            classifier.cpu()
            yield _compared(case, tf32, reference, found)
        settle_numerics()
        yield from _golden(case, kind, place)


Seen = dict[str, Tensor]


def _network(classifier: SpikingClassifier, spikes: Tensor, labels: Tensor) -> Seen:
    """Return logits, gradient at the spikes, an attack by one step, and the spikes of every layer."""
    seen: Seen = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            seen.setdefault(f"spikes {path}", output.detach().cpu())

        return hook

    layers = [(path, module) for path, module in classifier.network.named_modules() if isinstance(module, neuron.BaseNode)]
    hooks = [module.register_forward_hook(note(path)) for path, module in layers]
    target, x = SpikeTarget(classifier), spikes.transpose(0, 1)
    gradient, logits = input_gradient(target.logits, x, labels)
    for hook in hooks:
        hook.remove()
    return seen | {
        "logits": logits.detach().cpu(),
        "gradient": gradient.cpu(),
        "fgsm": FGSM(eps=8 / 255)(target, x, labels).cpu(),
    }


def _compared(case: str, tf32: bool, reference: Seen, found: Seen) -> Claim:
    layers = [name for name in reference if name.startswith("spikes ")]
    flipped = sum(int((reference[name] != found[name]).sum()) for name in layers)
    total = sum(reference[name].numel() for name in layers)
    first = next((name for name in layers if not torch.equal(reference[name], found[name])), "none")
    logits, gradient = _relative(reference, found, "logits"), _relative(reference, found, "gradient")
    same = float((reference["fgsm"] == found["fgsm"]).float().mean())
    agree = bool((reference["logits"].argmax(1) == found["logits"].argmax(1)).all())
    told = (
        f"{flipped} of {total} spikes differ, the first in {first}; logits {logits:.1e} apart, gradient {gradient:.1e}; "
        f"FGSM equal in {same:.2%} of the entries; same classes: {agree}"
    )
    numbers = {"flipped": flipped, "spikes": total, "logits": logits, "gradient": gradient, "fgsm_equal": same}
    name = f"network {case}, eval, TF32 {'on' if tf32 else 'off'}"
    if tf32:
        return measured(name, told, **numbers)
    remedy = "one flip in a million is rounding at the threshold; more: look at the first layer that differs, and at `neuron ...` above"
    holds = flipped <= FLIPS * total and logits <= LOGITS and agree
    return judged(name, f"at most {FLIPS:g} of the spikes differ from the CPU's, logits within {LOGITS:g}", told, holds, remedy, **numbers)


def _relative(one: Seen, other: Seen, name: str) -> float:
    return float((one[name] - other[name]).norm() / one[name].norm().clamp(min=1e-30))


def _golden(case: str, kind: type[nn.Module], place: Place) -> Iterator[Claim]:
    """Compare with the numbers that the authors' own code gave, on a CPU."""
    name = f"golden {case}"
    if place.data is None or not (place.data / f"{case}.npz").is_file():
        yield not_run(name, "the authors' numbers are not at hand: give their folder by --data", excused=True)
        return
    specification: Any = importlib.util.spec_from_file_location("fill", place.data / "fill.py")
    fill = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fill)
    network = kind(depth=18, num_classes=10, pool="max")
    network.load_state_dict(fill.fill(network.state_dict()))
    with np.load(place.data / f"{case}.npz") as file:
        golden = {key: file[key] for key in file.files}
    bits = np.unpackbits(golden["spikes_packed"])[: 10 * 4 * 3 * 32 * 32].reshape(10, 4, 3, 32, 32)
    spikes, labels = torch.from_numpy(bits).float().to(place.device), torch.from_numpy(golden["labels"]).to(place.device)
    classifier = SpikingClassifier(network).eval().to(place.device)
    for tf32 in (False, True) if place.gpu else (False,):
        settle_numerics(tf32)
        target, x = SpikeTarget(classifier), spikes.transpose(0, 1)
        gradient, logits = input_gradient(target.logits, x, labels)
        # Ours is of the summed loss of four images, theirs of the mean.
        ours = {"logits": logits.detach().cpu(), "gradient": gradient.transpose(0, 1).cpu() / 4}
        theirs = {"logits": torch.from_numpy(golden["eval_logits"]), "gradient": torch.from_numpy(golden["eval_input_grad"])}
        loss = float(F.cross_entropy(logits, labels)) - float(golden["eval_loss"])
        attacked = FGSM(eps=8 / 255)(target, x, labels).transpose(0, 1).cpu()
        same = float(((attacked - torch.from_numpy(golden["fgsm_eval_bn"])).abs() < 1e-6).float().mean())
        apart = {key: _relative(theirs, ours, key) for key in theirs}
        told = f"logits {apart['logits']:.1e} apart, gradient {apart['gradient']:.1e}, loss {loss:.1e}; FGSM equal in {same:.2%}"
        label = f"{name}, TF32 {'on' if tf32 else 'off'}"
        if tf32:
            yield measured(label, told, **apart, fgsm_equal=same)
            continue
        remedy = "compare `network ...`: a GPU that agrees with this CPU and not with the authors has a fault in both"
        holds = apart["logits"] <= LOGITS and same > 0.995
        yield judged(
            label, f"logits within {LOGITS:g} of the authors', FGSM equal in 99.5 %", told, holds, remedy, **apart, fgsm_equal=same
        )
    settle_numerics()


# Attacks ------------------------------------------------------------------------------------------------------------------


def attacks(place: Place) -> Iterator[Claim]:
    """Run every attack of the package, in both spaces, and see that it stays in its ball."""
    settle_kernels(torch.device(place.device))
    torch.manual_seed(0)
    classifier = SpikingClassifier(SEWResNet(depth=18, num_classes=10, pool="max")).eval().to(place.device)
    encoder = PhaseEncoder(num_steps=4).to(place.device)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, device=place.device)
    spikes = encoder(images).transpose(0, 1)
    targets = {"spikes": SpikeTarget(classifier), "image": ImageTarget(classifier, encoder)}
    inputs = {"spikes": spikes, "image": images / 255}
    # What the network says: an attack leaves an image alone that is wrong already.
    labels = targets["spikes"].judge(spikes).argmax(1)
    for kind in _classes(Attack) if place.gpu else [FGSM, PGD]:
        told, holds = [], True
        for space, target in targets.items():
            x, others = inputs[space].split(2)
            try:
                attack = _attack(kind, target, others)
                moved = attack(target, x, labels[:2], torch.Generator().manual_seed(0))
                far = float((moved - x).abs().max())
                holds &= far <= float(attack.eps) + 1e-5 and moved.device == x.device
                told.append(f"{space}: moved by {far:.4f} at most")
            except InputError as error:
                told.append(f"{space}: refused ({error})"[:120])
            except Exception as error:  # noqa: BLE001  # the other attacks are still to be tried
                holds = False
                told.append(f"{space}: {type(error).__name__}: {error}"[:300])
        remedy = "a tensor made on the wrong device, or an attack that _attack cannot make: the error names it"
        yield judged(f"attack {kind.__name__}", f"runs on {place.device}, within eps", "; ".join(told), holds, remedy)


def _attack(kind: type[Attack], target: SpikeTarget | ImageTarget, others: Tensor) -> Attack:
    """Return a short attack: settings have their defaults, and what has none is given."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = {"attack": PGD(steps=2), "rule": PoolGradient(), "source": target, "others": others}
    short = {name: 3 for name in ("steps", "queries", "draws") if name in fields}
    return kind(**{name: value for name, value in given.items() if name in fields} | short)


# Probes -------------------------------------------------------------------------------------------------------------------


def probes(place: Place) -> Iterator[Claim]:
    """Run every probe in a validation, and compare what it says with what it says on the CPU."""
    made: list[Probe] = [AdversarialAccuracy(attack=CodeBookAscent(steps=2), name="codebook"), *paper_probes()]
    made += [kind() for kind in _classes(Probe) if kind is not AdversarialAccuracy and not inspect.isabstract(kind)]
    for probe in made if place.gpu else made[:1]:
        probe.max_samples = 4
        name = f"probe {probe.name}"
        try:
            reference, found = (_validated(probe, device) for device in ("cpu", place.device))
        except Exception as error:  # noqa: BLE001  # the other probes are still to be tried
            yield judged(
                name, f"runs on {place.device}", f"{type(error).__name__}: {error}"[:400], False, "a tensor made on the wrong device"
            )
            continue
        far = {tag: abs(value - found[tag]) for tag, value in reference.items() if abs(value - found[tag]) > 1e-3 * max(1.0, abs(value))}
        told = f"{len(reference)} values; {len(far)} are further than 1e-3 from the CPU's"
        told += f", the furthest {max(far, key=far.__getitem__)} by {max(far.values()):.2g}" if far else ""
        # A spike that flips at its threshold moves attacks, shares and norms: told, and no fault.
        yield judged(
            name, "runs, and logs the names that it logs on the CPU", told, reference.keys() == found.keys(), "see the names", far=far
        )


def paper_probes() -> list[Probe]:
    """Return the paper's attacks as probes."""
    return [
        AdversarialAccuracy(attack=attack, space="spikes", batch_norm="batch", name=type(attack).__name__.lower())
        for attack in (FGSM(), PGD())
    ]


def _validated(probe: Probe, device: str) -> dict[str, float]:
    settle_numerics()
    settle_kernels(torch.device(device))
    torch.manual_seed(0)
    data = NoiseImages(images=4, tested=4, batch_size=4, validation="test", encoder=PhaseEncoder(num_steps=4))
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, callbacks=[probe], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, inference_mode=False,
    )  # fmt: skip
    (values,) = trainer.validate(SpikingClassifier(SEWResNet(depth=18, num_classes=10)), data, verbose=False)
    return {tag: float(value) for tag, value in values.items() if not tag.startswith("time/")}
