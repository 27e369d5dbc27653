"""Networks of known truth: what is hidden, how an attacker who knows would undo it, and in which half of the calibration each stands.

Kinds take turns between the two halves in the order of this file, which was fixed before anything was measured.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.audit_bench.data import CONTRAST, Digits
from benchmarks.audit_bench.layers import (
    Function,
    HandWritten,
    Misleading,
    Normalise,
    Thermometer,
    convolutional,
    noisy,
    quantised,
    shaken,
    spiking,
    straight_quantised,
    tied,
)
from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.attacks.base import Attack
from snn_sparsity.audit.collect.adapter import Adapted
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder, RateEncoder
from snn_sparsity.encoders.base import Encoder
from snn_sparsity.networks.neurons import IFNeuron

EPS = 8 / 255
BATCH = 64
Meant = Literal["masked", "honest", "weak", "not valid"]
Half = Literal["choose", "report"]


@dataclass
class Built:
    """A trained network, and what an attacker who knows it attacks instead.

    Args:
        model: What is audited.
        twins: Networks with the same decision and no hidden gradient; empty where nothing hides.
        encoder: The code in front of it; None where it takes images.
        random: Whether it draws anew at each pass.
        certified: By image, whether no image in the ball is classified otherwise, where that can be computed exactly.
    """

    model: nn.Module
    twins: list[nn.Module] = field(default_factory=list)
    encoder: Encoder | None = None
    random: bool = False
    certified: Callable[[Digits], Tensor] | None = None


@dataclass(frozen=True)
class Kind:
    """One way to build a network.

    Args:
        name: Its name.
        meant: What it was built to be; the truth is measured.
        about: What hides the gradient, or why nothing does.
        build: Trains one from training images, after the seed is set.
        half: Whether thresholds are chosen on it, or reported on it.
        claim: The quoted attack; None is the audit's own default.
    """

    name: str
    meant: Meant
    about: str
    build: Callable[[Digits], Built]
    half: Half
    claim: Attack | None = None


KINDS: list[Kind] = []


def kind(meant: Meant, claim: Attack | None = None) -> Callable[[Callable[[Digits], Built]], Callable[[Digits], Built]]:
    """Note a function that builds a network: its name is the network's, its docstring says what hides the gradient, or why nothing does."""

    def note(build: Callable[[Digits], Built]) -> Callable[[Digits], Built]:
        half: Half = "report" if sum(one.meant == meant for one in KINDS) % 2 else "choose"
        KINDS.append(Kind(build.__name__.replace("_", " "), meant, str(build.__doc__), build, half, claim))
        return build

    return note


# Training --------------------------------------------------------------------------------------------------------------------

Adversary = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]


def learn(
    model: nn.Module,
    train: Digits,
    encoder: Encoder | None = None,
    *,
    epochs: int = 12,
    adversary: Adversary | None = None,
    temperature: float = 1.0,
    noise: float = 0.0,
) -> nn.Module:
    """Train a model in place for a few seconds and return it in eval mode.

    Args:
        model: Images to logits; with an encoder, spikes to outputs.
        train: What it learns.
        encoder: The code in front of it.
        epochs: How often it sees each image.
        adversary: Makes the images of each step worse, given the network on images.
        temperature: What logits are divided by.
        noise: Standard deviation of Gaussian noise, in units of pixels.
    """
    adapted = Adapted(model, timed=encoder is not None)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    steps = epochs * -(-len(train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    random = torch.Generator().manual_seed(0)

    def logits(x: Tensor) -> Tensor:
        if encoder is None:
            return adapted(x.unsqueeze(0))
        direct = isinstance(encoder, DirectEncoder)
        return adapted(x.unsqueeze(0).expand(encoder.num_steps, *x.shape) if direct else encoder(x, random))

    for _ in range(epochs):
        for batch in torch.randperm(len(train.labels)).split(BATCH):
            x, labels = train.pixels[batch], train.labels[batch]
            if adversary is not None:
                model.eval()
                x = adversary(logits, x, labels)
            model.train()
            x = x + torch.randn_like(x) * noise
            optimizer.zero_grad()
            F.cross_entropy(logits(x) / temperature, labels).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def ascending(steps: int, step: float, start: float = 1.0) -> Adversary:
    """Return an adversary that takes signed gradient steps in the ball, from a random start of a share of its radius."""

    def attack(logits: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
        worse = x + (2 * torch.rand_like(x) - 1) * EPS * start
        for _ in range(steps):
            worse = worse.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits(worse), labels), worse)
            worse = torch.minimum(torch.maximum(worse + step * gradient.sign(), x - EPS), x + EPS)
        return worse.detach()

    return attack


def with_neurons(network: nn.Module, neurons: IFNeuron) -> nn.Module:
    """Return a copy of a spiking network with other neurons: the same decision, another gradient."""
    copy = deepcopy(network)
    fresh = neurons.build()
    for module in copy.modules():
        if hasattr(module, "surrogate_function"):
            module.surrogate_function = fresh.surrogate_function
    return copy


def direct() -> DirectEncoder:
    """Return the code that shows the pixel's value in each of four steps."""
    return DirectEncoder(num_steps=4)


def in_front(function: Callable[[Tensor], Tensor] | nn.Module, network: nn.Module) -> nn.Module:
    """Return a network behind something."""
    return nn.Sequential(function if isinstance(function, nn.Module) else Function(function), network).eval()


# Masked ----------------------------------------------------------------------------------------------------------------------


@kind("masked")
def needle_surrogate(train: Digits) -> Built:
    """ATan with alpha 1000 instead of the 2 it was trained with."""
    network = learn(spiking(), train, direct())
    return Built(with_neurons(network, IFNeuron(alpha=1000.0)), [network], direct())


@kind("masked")
def rectangular_surrogate(train: Digits) -> Built:
    """A rectangle of width 1/50 instead of the ATan it was trained with."""
    network = learn(spiking(), train, direct())
    return Built(with_neurons(network, IFNeuron(surrogate="rect", alpha=50.0)), [network], direct())


@kind("masked")
def scaled_logits(train: Digits) -> Built:
    """Logits times 10,000: the softmax is flat, and the gradient of cross-entropy exactly 0."""
    network = learn(convolutional(), train)
    return Built(nn.Sequential(network, Function(lambda z: 1e4 * z)).eval(), [network])


@kind("masked")
def quantised_input(train: Digits) -> Built:
    """Pixels rounded to 32 levels."""
    network = learn(in_front(straight_quantised, convolutional()), train)
    return Built(in_front(quantised, network[1]), [network])


@kind("masked")
def blocked_module(train: Digits) -> Built:
    """A thermometer code by comparisons, in a module that lets no gradient pass."""
    network = learn(in_front(straight_quantised, convolutional()), train)
    blocked = in_front(Thermometer(), network[1])
    straight = Thermometer()
    return Built(blocked, [in_front(lambda x: x + (straight(x) - x).detach(), network[1])])


@kind("masked")
def hidden_ties(train: Digits) -> Built:
    """The larger of two equal numbers, of which one is cut off from the gradient."""
    network = learn(convolutional(), train)
    return Built(in_front(tied, network), [network])


@kind("masked")
def random_without_eot(train: Digits) -> Built:
    """A tiny random shake with a large derivative: its expectation is harmless."""
    network = learn(convolutional(), train)
    return Built(in_front(shaken, network), [network], random=True)


@kind("masked")
def saturated_neurons(train: Digits) -> Built:
    """Trained with tanh, then made so steep that its derivative is 0 nearly everywhere."""
    steep = Function(lambda z: torch.tanh(200 * z))

    def soft() -> nn.Module:
        return Function(lambda z: torch.tanh(4 * z) + (torch.tanh(200 * z) - torch.tanh(4 * z)).detach())

    network = learn(convolutional(soft), train)
    saturated = deepcopy(network)
    saturated[2] = saturated[4] = steep
    return Built(saturated, [network])


@kind("masked")
def temperature(train: Digits) -> Built:
    """Trained at temperature 50, used at 1: defensive distillation."""
    network = learn(convolutional(), train, temperature=50.0)
    return Built(network, [nn.Sequential(network, Function(lambda z: z / 50))])


@kind("masked")
def misleading_gradient(train: Digits) -> Built:
    """A hand-written layer whose backward pass turns half of the signs round."""
    network = learn(convolutional(), train)
    return Built(in_front(Misleading.apply, network), [network])


@kind("masked")
def needle_behind_phase_code(train: Digits) -> Built:
    """ATan with alpha 1000 behind the phase code."""
    encoder = PhaseEncoder(num_steps=8)
    network = learn(spiking(normalised=False), train, encoder)
    return Built(with_neurons(network, IFNeuron(alpha=1000.0)), [network], encoder)


@kind("masked")
def hand_written_needle(train: Digits) -> Built:
    """Hand-written spikes, whose derivative is a rectangle of width 1/100 instead of the 1 it was trained with."""
    network = learn(HandWritten(1.0), train)
    needle = deepcopy(network)
    needle.width = 0.01
    return Built(needle, [network])


@kind("masked")
def probabilities(train: Digits) -> Built:
    """Probabilities of logits times 30 as the output."""
    network = learn(convolutional(), train)
    return Built(nn.Sequential(network, Function(lambda z: (30 * z).softmax(1))).eval(), [network])


# Quoted too high, and not valid ------------------------------------------------------------------------------------------------


@kind("weak", FGSM(eps=EPS))
def one_step_quoted(train: Digits) -> Built:
    """One step of the full radius in training and in the claim."""
    return Built(learn(convolutional(), train, adversary=ascending(1, 1.6 * EPS, start=0.0), epochs=20))


@kind("weak", PGD(eps=EPS, steps=2, alpha=1 / 255, random_start=False))
def short_steps_quoted(train: Digits) -> Built:
    """Two steps of one grey level in the claim."""
    return Built(learn(convolutional(), train, adversary=ascending(4, EPS / 2)))


@kind("not valid")
def statistics_of_the_batch(train: Digits) -> Built:
    """BatchNorm with the statistics of the batch: an image's logits depend on the others."""
    network = convolutional()
    network.insert(2, nn.BatchNorm2d(16, track_running_stats=False))
    return Built(learn(network, train))


@kind("not valid")
def neurons_not_reset(train: Digits) -> Built:
    """Hand-written neurons that nobody resets: an image's logits depend on the call before."""
    network = learn(HandWritten(1.0), train)
    network.forgets = False
    return Built(network)


# Honest ----------------------------------------------------------------------------------------------------------------------


def linear_margin(network: nn.Module, images: Digits) -> Tensor:
    """Return of each image whether its margin to each other class exceeds ``eps |w_y - w_j|_1``: then, and only then, nothing breaks it."""
    weights = network[-1].weight.detach() * (2 / CONTRAST)
    with torch.no_grad():
        logits = network(images.pixels)
    rows = torch.arange(len(images.labels))
    gaps = logits[rows, images.labels][:, None] - logits
    needed = EPS * (weights[images.labels][:, None] - weights[None]).abs().sum(2)
    holds = gaps > needed
    holds[rows, images.labels] = True
    return holds.all(1)


@kind("honest")
def certified_linear_margin(train: Digits) -> Built:
    """Linear: accuracy in the ball is computed exactly."""
    network = learn(nn.Sequential(Normalise(), nn.Flatten(), nn.Linear(64, 10)), train, adversary=ascending(4, EPS / 2))
    return Built(network, certified=lambda images: linear_margin(network, images))


@kind("honest")
def adversarially_trained_cnn(train: Digits) -> Built:
    """Trained on PGD with 4 steps."""
    return Built(learn(convolutional(), train, adversary=ascending(4, EPS / 2)))


@kind("honest")
def adversarially_trained_snn(train: Digits) -> Built:
    """Trained on PGD with 4 steps."""
    network = learn(spiking(), train, direct(), adversary=ascending(4, EPS / 2))
    return Built(network, [with_neurons(network, IFNeuron(alpha=1.0))], direct())


@kind("honest")
def noise_trained(train: Digits) -> Built:
    """Trained on Gaussian noise of 16 grey levels."""
    return Built(learn(convolutional(), train, noise=16 / 255))


@kind("honest")
def undefended_ann(train: Digits) -> Built:
    """Nothing but training."""
    return Built(learn(convolutional(), train))


@kind("honest")
def undefended_snn(train: Digits) -> Built:
    """Nothing but training, pixels' values as input."""
    network = learn(spiking(), train, direct())
    return Built(network, [with_neurons(network, IFNeuron(alpha=1.0))], direct())


@kind("honest")
def undefended_snn_phase_code(train: Digits) -> Built:
    """Nothing but training, behind the phase code."""
    encoder = PhaseEncoder(num_steps=8)
    network = learn(spiking(normalised=False), train, encoder)
    return Built(network, [with_neurons(network, IFNeuron(alpha=1.0))], encoder)


@kind("honest")
def spike_count_read_out(train: Digits) -> Built:
    """Its logits are counts of spikes, with ties."""
    network = learn(spiking(read_out=True), train, direct())
    return Built(network, [with_neurons(network, IFNeuron(alpha=1.0))], direct())


@kind("honest")
def quantised_with_a_gradient(train: Digits) -> Built:
    """Pixels rounded to 32 levels, with a straight-through derivative of its own."""
    return Built(learn(in_front(straight_quantised, convolutional()), train))


@kind("honest")
def dropout_at_test_time(train: Digits) -> Built:
    """Dropout stays on."""
    network = learn(convolutional(), train)
    network.insert(6, Function(lambda x: F.dropout(x, 0.2)))
    return Built(network, random=True)


@kind("honest")
def threshold_of_three(train: Digits) -> Built:
    """Neurons fire at 3."""
    neurons = IFNeuron(threshold=3.0)
    network = learn(spiking(neurons), train, direct())
    return Built(network, [with_neurons(network, IFNeuron(threshold=3.0, alpha=1.0))], direct())


def half_cut(x: Tensor) -> Tensor:
    """Cut half of the channels off from the gradient."""
    kept = (torch.arange(x.shape[1]) % 2 == 1).view(1, -1, 1, 1)
    return torch.where(kept, x, x.detach())


@kind("honest")
def half_the_channels_detached(train: Digits) -> Built:
    """Half of the channels are cut off from the gradient: what is left is nearly enough."""
    network = learn(convolutional(), train)
    cut = deepcopy(network)
    cut.insert(3, Function(half_cut))
    return Built(cut, [network])


@kind("honest")
def adversarially_trained_with_pooling(train: Digits) -> Built:
    """Trained on PGD with 4 steps, with BatchNorm and average pooling."""
    network = nn.Sequential(
        Normalise(), nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    return Built(learn(network, train, adversary=ascending(4, EPS / 2)))


@kind("honest")
def undefended_snn_rate_code(train: Digits) -> Built:
    """Random spikes, the draws averaged over."""
    encoder = RateEncoder(num_steps=8)
    return Built(learn(spiking(normalised=False), train, encoder, epochs=15), encoder=encoder, random=True)


@kind("honest")
def noise_in_front(train: Digits) -> Built:
    """Gaussian noise of 20 grey levels in front, in training too: gradients of single draws point the same way."""
    return Built(learn(in_front(noisy, convolutional()), train), random=True)
