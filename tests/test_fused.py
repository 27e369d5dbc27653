import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Trainer
from spikingjelly.activation_based import functional, monitor, neuron, surrogate
from torch import nn

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.measure.operations import holds_state, operations
from snn_sparsity.networks import VGG, IFNeuron, SEWResNet, SpikingResNet, fused, native, sparse, spike_batch_norm
from snn_sparsity.networks.neurons import INTEGRATE, FusedIFNode, FusedLIFNode, FusedParametricLIFNode
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork

KINDS = {FusedIFNode: neuron.IFNode, FusedLIFNode: neuron.LIFNode, FusedParametricLIFNode: neuron.ParametricLIFNode}


@pytest.fixture(autouse=True)
def _compiled():
    """Every test here is about the compiled function: without one it would compare SpikingJelly with itself."""
    assert fused.compiled(INTEGRATE) is not None


@pytest.fixture
def cache(tmp_path):
    """The cache directory of this test."""
    return tmp_path / "cache"


@pytest.fixture
def calls(monkeypatch):
    """How often the compiled function was used."""
    found = []
    monkeypatch.setattr(fused.Dynamics, "call", lambda *args, call=fused.Dynamics.call: (found.append(args[1]), call(*args)))
    return found


def everything(node, x, v, weights):
    """Spikes, last potential and all gradients of a neuron layer."""
    x, v = x.clone().requires_grad_(), v.clone().requires_grad_()
    node.v = v
    spikes = node(x)
    return [spikes, node.v, *torch.autograd.grad([spikes, node.v], [x, v, *node.parameters()], weights)]


def test_by_hand():
    node = FusedIFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
    x = torch.tensor([[0.25], [0.75], [0.5]], requires_grad=True)
    spikes = node(x)
    # Potentials 0.25, 1 (at the threshold: fires, reset to 0), 0.5.
    assert spikes.flatten().tolist() == [0.0, 1.0, 0.0]
    assert node.v.item() == 0.5
    # The first spike sees the first input from 0.75 below; the second sees both from 0; the third only what follows the reset.
    far, half = (1 / (1 + (torch.pi * distance) ** 2) for distance in (0.75, 0.5))
    for step, expected in enumerate([[far, 0, 0], [1, 1, 0], [0, 0, half]]):
        (gradient,) = torch.autograd.grad(spikes[step], x, retain_graph=True)
        assert gradient.flatten().tolist() == pytest.approx(expected)


def sized(kind, threshold=1.0, reset=0.0, detach=True, alpha=2.0, decay_input=True):
    """Ours and SpikingJelly's neuron with the same numbers."""
    special = {FusedIFNode: {}, FusedLIFNode: {"tau": 3.0}, FusedParametricLIFNode: {"init_tau": 3.0}}[kind]
    if special:
        special["decay_input"] = decay_input
    numbers = {"v_threshold": threshold, "v_reset": reset, "detach_reset": detach, "step_mode": "m"}
    return [cls(surrogate_function=surrogate.ATan(alpha), **numbers, **special) for cls in (kind, KINDS[kind])]


@pytest.mark.parametrize("kind", KINDS)
@given(
    reset=st.sampled_from([None, 0.0, -0.25]),
    detach=st.booleans(),
    decay_input=st.booleans(),
    threshold=st.sampled_from([1.0, 0.7, 1e-3]),
    alpha=st.sampled_from([2.0, 5.3]),
    steps=st.integers(1, 5),
    neurons=st.sampled_from([1, 3, 255, 256, 700]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_to_spikingjelly_bit_for_bit(kind, reset, detach, decay_input, threshold, alpha, steps, neurons, seed):
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.randn(steps, 2, neurons, generator=generator) for _ in range(2))
    v, g_v = (torch.randn(2, neurons, generator=generator) for _ in range(2))
    ours, theirs = (everything(node, x + 0.3, v, [g, g_v]) for node in sized(kind, threshold, reset, detach, alpha, decay_input))
    for mine, reference in zip(ours[:4], theirs[:4], strict=True):
        assert torch.equal(mine, reference)
    for mine, reference in zip(ours[4:], theirs[4:], strict=True):
        # A learnt leak's gradient is a sum over all neurons, in another order.
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


def test_many_neurons_on_several_threads_and_other_layouts(calls):
    plain = torch.randn(6, 4, 8, 16, 16)
    channels_last = plain.movedim(2, -1).contiguous().movedim(-1, 2)
    gaps = torch.randn(12, 4, 8, 16, 20)[::2, ..., :16]
    for x in (plain, channels_last, plain.transpose(1, 3), plain.transpose(0, 1), gaps):
        calls.clear()
        ours, theirs = (everything(node, x, torch.zeros(x.shape[1:]), [x.cos(), x[0].sin()]) for node in sized(FusedIFNode))
        assert all(torch.equal(mine, reference) for mine, reference in zip(ours, theirs, strict=True))
        assert calls == ["forward", "backward"]
    assert FusedIFNode(step_mode="m")(channels_last).stride() == channels_last.stride()


def test_layers_in_sequence_keep_their_state_between_calls():
    ours, theirs = sized(FusedIFNode)
    x = torch.rand(4, 3, 5)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
        assert torch.equal(ours.v, theirs.v)
    assert holds_state(ours)
    functional.reset_net(ours)
    assert not holds_state(ours)


def test_second_derivatives_are_those_of_spikingjelly():
    def penalty(node):
        x = torch.linspace(0.1, 1.3, 12).view(4, 3).requires_grad_()
        (first,) = torch.autograd.grad((node(x) * torch.arange(12.0).view(4, 3)).sum(), x, create_graph=True)
        return first.detach(), torch.autograd.grad(first.square().sum(), x)[0]

    for kind in (FusedIFNode, FusedLIFNode):
        ours, theirs = map(penalty, sized(kind, detach=False))
        assert ours[1].abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


class OtherATan(surrogate.ATan):
    pass


class Straight(nn.Module):
    def forward(self, u):
        return (u >= 0).to(u) + u - u.detach()


GENERIC = {
    "foreign surrogate": lambda node: setattr(node, "surrogate_function", Straight()),
    "subclass": lambda node: setattr(node, "surrogate_function", OtherATan()),
    "other surrogate": lambda node: setattr(node, "surrogate_function", surrogate.Sigmoid()),
    "primitive": lambda node: node.surrogate_function.set_spiking_mode(False),
    "potentials wanted": lambda node: setattr(node, "store_v_seq", True),
    "single step": lambda node: setattr(node, "step_mode", "s"),
    "float64": lambda node: None,
}


@pytest.mark.parametrize("name", GENERIC)
def test_what_it_was_not_made_for_runs_on_spikingjelly(name, calls):
    results = []
    for node in sized(FusedIFNode):
        GENERIC[name](node)
        x = torch.linspace(-1, 2, 60, dtype=torch.float64 if name == "float64" else torch.float32).view(4, 15).requires_grad_()
        spikes = node(x)
        results.append((spikes, torch.autograd.grad(spikes.sum(), x)[0], node.v))
    assert calls == []
    assert all(torch.equal(mine, reference) for mine, reference in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("name", "value"), [("detach_reset", False), ("v_threshold", 0.5), ("v_reset", None), ("surrogate_function.alpha", 7.0)]
)
def test_settings_changed_in_place_are_honoured(name, value, calls):
    x, g = torch.randn(4, 50), torch.randn(4, 50)

    def gradient(node):
        return everything(node, x, torch.zeros(50), [g, g[0]])[2]

    ours, theirs = sized(FusedIFNode)
    before = gradient(ours)
    for node in (ours, theirs):
        owner, _, attribute = name.rpartition(".")
        setattr(node.get_submodule(owner), attribute, value)
    assert torch.equal(gradient(ours), gradient(theirs))
    assert not torch.equal(gradient(ours), before)
    assert set(calls) == {"forward", "backward"}


def test_copies_and_pickles():
    node = sized(FusedParametricLIFNode)[0]
    x = torch.randn(3, 8)
    expected = node(x)
    functional.reset_net(node)
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("kind", [SEWResNet, SpikingResNet])
def test_networks_do_not_depend_on_the_kernel(kind, calls):
    spikes, labels = torch.randint(0, 2, (4, 2, 3, 32, 32)).float(), torch.tensor([1, 2])
    results = []
    for kernel in ("spikingjelly", "fused"):
        torch.manual_seed(0)
        network = kind(neuron=IFNeuron(detach_reset=kind is SEWResNet, kernel=kernel))
        x = spikes.clone().requires_grad_()
        loss = F.cross_entropy(network(x).mean(0), labels)
        results.append((list(network.state_dict()), loss, torch.autograd.grad(loss, [x, *network.parameters()])))
    (names, loss, gradients), (other_names, other_loss, other_gradients) = results
    assert names == other_names
    assert torch.equal(loss, other_loss)
    # Bits may differ where PyTorch sums over a layout of its own choice.
    torch.testing.assert_close(gradients, other_gradients, rtol=1e-6, atol=1e-6)
    neurons = len(operations(network, ["neuron"]))
    assert calls == ["forward"] * neurons + ["backward"] * neurons


def test_it_is_a_neuron_to_spikingjelly_s_tools(network):
    assert all(isinstance(layer, neuron.IFNode) for layer in (network.sn1, network.sn2))
    recorder = monitor.OutputMonitor(network, neuron.IFNode)
    network(torch.ones(3, 2, 3, 32, 32))
    assert [tuple(record.shape) for record in recorder.records] == [(3, 2, 8, 16, 16), (3, 2, 16, 4, 4)]
    recorder.remove_hooks()


def test_kernels_give_the_same_losses_over_50_steps():
    def losses(plain):
        torch.manual_seed(0)
        classifier = SpikingClassifier(TinyNetwork())
        optimizer = classifier.configure_optimizers()
        if plain:
            for layer in (classifier.network.sn1, classifier.network.sn2):
                layer.__class__ = neuron.IFNode
        data = TinyDataModule()
        data.setup("fit")
        found = []
        for epoch in range(17):
            loader = data.train_dataloader()
            loader.sampler.set_epoch(epoch)
            for raw in loader:
                batch = data.on_after_batch_transfer(raw, 0)
                optimizer.zero_grad()
                loss = F.cross_entropy(classifier(batch.spikes), batch.labels)
                loss.backward()
                optimizer.step()
                found.append(loss.item())
        return found[:50]

    plain, fast = losses(plain=True), losses(plain=False)
    assert len(plain) == 50
    assert plain[-1] < 0.9 * plain[0]
    assert fast == pytest.approx(plain, abs=1e-4)


def test_fused_adam_is_adam():
    """Step by step from the same weights and moments: over many steps one spike moved by rounding changes every later loss."""
    classifier = SpikingClassifier(TinyNetwork())
    optimizer = classifier.configure_optimizers()
    for seed in range(50):
        twin = copy.deepcopy(classifier)
        plain = torch.optim.Adam(twin.parameters(), lr=classifier.lr, betas=classifier.betas, weight_decay=classifier.weight_decay)
        plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        plain.param_groups[0]["fused"] = False
        torch.manual_seed(seed)
        for ours, theirs in zip(classifier.parameters(), twin.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        optimizer.step()
        plain.step()
        torch.testing.assert_close(list(classifier.parameters()), list(twin.parameters()), rtol=1e-6, atol=1e-6)


@pytest.fixture
def compiling_anew():
    """Forget what was compiled, before and after."""

    def forget():
        for remembered in (fused.compiled, sparse.compiled, spike_batch_norm.compiled, native.warn_once):
            remembered.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.usefixtures("compiling_anew")
def test_without_a_compiler_spikingjelly_takes_over_with_one_line(monkeypatch, caplog, calls):
    monkeypatch.setenv("CC", "no-such-compiler --at-all")
    ours, theirs = sized(FusedIFNode)
    for _ in range(3):
        x = torch.rand(4, 9)
        assert torch.equal(ours(x), theirs(x))
    assert sparse.compiled(torch.float32) is None
    (line,) = caplog.messages
    assert line.startswith("No C compiler (no-such-compiler --at-all")
    with pytest.raises(InputError, match="kernel='fused' needs a C compiler"):
        IFNeuron(kernel="fused")
    assert type(IFNeuron(kernel="auto").build()) is FusedIFNode
    assert calls == []


@pytest.mark.usefixtures("compiling_anew")
@pytest.mark.parametrize("build", [SEWResNet, VGG])
def test_kernels_are_compiled_when_a_network_is_built_and_not_in_a_forward_pass(build, monkeypatch):
    asked = []
    monkeypatch.setattr(
        native, "library", lambda source, *options, ask=native.library: (asked.append(source.name), ask(source, *options))[1]
    )
    network = build()
    assert sorted(asked) == ["fused.c", "sparse.c", "spike_batch_norm.c"]
    x = torch.randint(0, 2, (2, 2, 3, 32, 32)).float().requires_grad_()
    torch.autograd.grad(network(x).sum(), [x, *network.parameters()])
    assert len(asked) == 3


@pytest.mark.usefixtures("compiling_anew")
def test_a_compiler_that_fails_and_a_source_that_is_missing_are_told_apart(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("CC", "false")
    assert fused.compiled(INTEGRATE) is None
    monkeypatch.delenv("CC")
    broken = tmp_path / "broken.c"
    broken.write_text("int forward(void) { return nonsense; }\n")
    assert native.library(broken) is None
    assert native.library(tmp_path / "gone.c") is None
    failed, wrong, missing = caplog.messages
    assert failed.startswith("false could not compile fused.c (exit code 1)")
    assert "could not compile broken.c" in wrong
    assert missing.startswith("gone.c is missing from this installation")


def test_it_is_compiled_once_for_all_processes(monkeypatch, tmp_path, cache):
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 41 + PLUS; }\n")
    assert native.library(source, "-DPLUS=1").answer() == 42
    (kept,) = cache.glob("kernels/answer-*.so")
    # Now only what was kept can answer.
    monkeypatch.setattr(native.subprocess, "run", None)
    assert native.library(source, "-DPLUS=1").answer() == 42
    assert list(cache.glob("kernels/answer*")) == [kept]


@pytest.mark.parametrize("harm", ["cut short", "one bit", "written by others", "folder open to others"])
def test_a_library_that_is_damaged_or_anybody_s_is_compiled_again(harm, tmp_path, cache, monkeypatch):
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }\n")
    native.library(source)
    (kept,) = cache.glob("kernels/answer-*.so")
    content = kept.read_bytes()
    if harm == "cut short":
        kept.write_bytes(content[: len(content) // 2])
    elif harm == "one bit":
        kept.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    else:
        (kept if harm == "written by others" else kept.parent).chmod(0o777)
    compiled = []
    monkeypatch.setattr(native, "_compile", lambda *args, compile=native._compile: (compiled.append(args), compile(*args))[1])
    assert native.library(source).answer() == 42
    assert len(compiled) == 1


@pytest.mark.parametrize("place", ["a file", "a link to nowhere"])
@pytest.mark.usefixtures("compiling_anew")
def test_a_cache_that_cannot_be_written_stops_nothing(place, tmp_path, monkeypatch, caplog):
    cache = tmp_path / "elsewhere"
    cache.touch() if place == "a file" else cache.symlink_to(tmp_path / "away" / "disk")
    monkeypatch.setenv("SNN_SPARSITY_CACHE", str(cache))
    x = torch.rand(4, 9)
    for kind in (FusedIFNode, FusedLIFNode):
        ours, theirs = sized(kind)
        assert torch.equal(ours(x), theirs(x))
        assert fused.compiled(ours._charge()) is not None
    (line,) = caplog.messages
    assert line.startswith("Compiled kernels cannot be kept")


def test_kernels_by_name():
    assert type(IFNeuron(kernel="spikingjelly").build()) is neuron.IFNode
    assert type(IFNeuron(kernel="fused").build()) is FusedIFNode
    with pytest.raises(InputError, match="kernel"):
        IFNeuron(kernel="cuda")


def test_it_keeps_less_for_the_backward_pass_than_spikingjelly():
    def kept(node):
        seen = {}

        def note(tensor):
            seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        x = torch.randn(10, 4, 100, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            node(x)
        return sum(seen.values())

    ours, theirs = map(kept, sized(FusedIFNode))
    assert ours < 0.6 * theirs


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_trains_in_lightning_with_clipped_gradients(precision, trainer_options):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork())
    before = classifier.network.conv1.weight.clone()
    options = trainer_options | {"precision": precision, "gradient_clip_val": 1.0, "max_steps": 2, "limit_val_batches": 0}
    Trainer(**options).fit(classifier, datamodule=TinyDataModule())
    assert not torch.equal(classifier.network.conv1.weight, before)


@pytest.fixture
def strict_on_two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("strict_on_two_threads")
def test_deterministic_on_several_threads(network):
    x = torch.randint(0, 2, (10, 8, 3, 32, 32)).float()

    def gradients():
        functional.reset_net(network)
        return torch.autograd.grad(network(x).square().sum(), list(network.parameters()))

    assert all(torch.equal(one, other) for one, other in zip(gradients(), gradients(), strict=True))
