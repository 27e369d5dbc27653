import json
import subprocess
import sys

import pytest
import torch

from benchmarks.baseline import Loop
from benchmarks.figure import draw
from benchmarks.floors import bytes_of_the_rest, convolutions, shapes
from benchmarks.ours import Project
from benchmarks.table import markdown
from benchmarks.work import EPS, WORN, Work, wear
from snn_sparsity.attacks import FGSM
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.reachability import reachability

SMALL = Work(batches=(2, 3), attack_batch=2, pipeline_images=5, scale=25_000)


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_help_does_not_wait_for_pytorch():
    code = """
import sys
from snn_sparsity.commands.main import main
main(["--help"])
print("torch" in sys.modules, "lightning" in sys.modules)
"""
    assert in_a_fresh_process(code)[-2:] == ["False", "False"]


def test_denormals_are_zero_in_every_thread_of_the_command_line():
    code = """
import torch
from snn_sparsity.numerics import settle_numerics
settle_numerics()
torch.set_num_threads(4)
print((torch.full((4_000_000,), 1e-39) * 1.0).view(torch.int32).count_nonzero().item())
"""
    assert in_a_fresh_process(code) == ["0"]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_flushing_denormals_does_not_change_what_probes_count(classifier):
    torch.manual_seed(1)
    spikes = torch.randint(0, 2, (8, 10, 3, 32, 32)).float()
    with torch.no_grad():
        # Sure of itself by 30 to 50 nats, where a trained network has 1 to 10.
        classifier.network.fc.weight *= 4000
        labels = classifier(spikes.transpose(0, 1)).argmax(1)

    def gradients(flush):
        torch.set_flush_denormal(flush)
        with record_gradients(classifier.network, reduce=lambda _, gradient: gradient.clone()) as record:
            input_gradient(SpikeTarget(classifier).logits, spikes, labels)
        torch.set_flush_denormal(False)
        return record.values

    exact, flushed = gradients(flush=False), gradients(flush=True)
    smallest = min(values[values != 0].abs().min().item() for values in exact.values())
    assert 0 < smallest < 1e-25
    for path, values in exact.items():
        assert torch.equal(values == 0, flushed[path] == 0), path


# The benchmark ------------------------------------------------------------------------------------------------------------


def test_both_sides_do_the_same_work():
    baseline, ours = Loop(SMALL), Project(SMALL)
    ours.classifier.network.load_state_dict(baseline.network.state_dict())
    spikes, labels = baseline._batch(2)
    batch = ours.batch(2)
    assert torch.equal(spikes, batch.spikes)
    assert torch.equal(labels, batch.labels)
    baseline.network.eval(), ours.classifier.eval()
    torch.testing.assert_close(baseline.forward(spikes), ours.classifier(spikes), rtol=1e-5, atol=1e-5)
    theirs = baseline._ascend(spikes, spikes, labels, EPS, steps=1)
    mine = FGSM(eps=EPS)(SpikeTarget(ours.classifier, "batch"), spikes.transpose(0, 1), labels).transpose(0, 1)
    assert ((theirs - mine).abs() < 1e-6).float().mean() > 0.995
    assert (theirs - spikes).abs().max() > 0


def test_every_arm_runs_and_both_sides_have_the_same():
    baseline, ours = Loop(SMALL).arms(), Project(SMALL).arms()
    assert list(baseline) == list(ours)[: len(baseline)]
    for name in ("input pipeline", "training step, batch 3", "clean evaluation"):
        assert baseline[name]() is None
        assert ours[name]() is None


def test_worn_weights_are_those_no_image_reaches():
    loop = Loop(SMALL)
    before = loop.network.layer4[1].conv1.weight.detach().clone()
    loop.wear()
    worn = (loop.network.layer4[1].conv1.weight.view(torch.int32) & 0x7F800000) == 0
    assert torch.equal(worn, ~reachability(loop.network)["layer4.1.conv1"])
    assert not torch.equal(before, loop.network.layer4[1].conv1.weight)
    assert 0 < WORN < torch.finfo(torch.float32).tiny


def test_wearing_twice_is_harmless(network):
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 1, 3, 32, 32)).sum().backward()
    optimizer.step()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wear(network, optimizer)
    # Every tap of this network sees an image.
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_floors_by_hand(network):
    spikes = torch.rand(1, 1, 3, 32, 32)
    first, second, pooled = 8 * 16 * 16, 16 * 4 * 4, 8 * 8 * 8
    parameters = sum(parameter.numel() for parameter in network.parameters())
    expected = (8 + 5) * (first + second) + 2 * first + 4 * pooled + 2 * second + 4 * 16 + 7 * parameters
    assert bytes_of_the_rest(network, spikes) == 4 * expected
    seen = shapes(network, spikes)
    assert list(seen) == ["conv1", "bn1", "sn1", "maxpool", "conv2", "bn2", "sn2", "avgpool", "fc"]
    assert not any(module._forward_hooks for module in network.modules())
    ran = []
    floor = convolutions(network, spikes)
    for path in seen:
        network.get_submodule(path).register_forward_hook(lambda *_, path=path: ran.append(path))
    floor()
    assert ran == ["conv1", "conv2", "fc"]
    assert all(parameter.grad is None for parameter in network.parameters())


def timed(*seconds):
    values = list(seconds)
    return {"median": sorted(values)[len(values) // 2], "min": min(values), "max": max(values), "values": values}


RESULT = {
    "machine": {"processor": "Abacus", "cores": 2, "threads": 2, "instructions": ["avx2"], "load before": 0.1, "gpu": None, "torch": "2"},
    "work": {"device": "cpu", "depth": 18, "time_steps": 10, "attack_batch": 100, "scale": 500, "epoch_train": 100, "epoch_test": 20},
    "arms": {
        "training step, batch 16": {"baseline": timed(3.0, 4.0, 5.0), "ours": timed(2.0, 2.0, 1.0)},
        "FGSM + PGD-7": {"baseline": timed(20.0), "ours": timed(10.0)},
        "probe sparsity": {"ours": timed(0.48)},
        "floor: convolutions, batch 16": {"ours": timed(1.6)},
        "floor: copy": {"ours": timed(0.1)},
        "growth: T=5": {"ours": timed(1.0)},
        "growth: T=10": {"ours": timed(2.0)},
    },
    "bytes_of_the_rest": 2_000_000,
    "bytes_copied": 1_000_000,
    "profile": {"aten::mm": 0.25},
    "peak_mib": {"FGSM + PGD-7": {"baseline": 100.0, "ours": 101.0}},
    "start_up": {"--help": timed(1.0), "fit --print_config": timed(7.0)},
}


def test_tables_by_hand():
    text = markdown(json.loads(json.dumps(RESULT)))
    assert "| training step, batch 16 | 4.000 (3.000-5.000) | 2.000 (1.000-2.000) | **2.00** (1.50-5.00) | 3.8: **missed** |" in text
    assert "| FGSM + PGD-7 | 20.000 (20.000-20.000) | 10.000 (10.000-10.000) | **2.00** (2.00-2.00) | 5: **missed** |" in text
    # All else: 2 MB at 10 MB/s.
    assert "| both floors | 1.800 | 1.11 |" in text
    assert "at most 1 times the convolutions: **missed**" in text
    # 10 ms an image and 1,000 images, against 50,000 images at 125 ms.
    assert "| `aten::mm` | 25.0% |" in text
    assert "| sparsity | 10.0 | 0.2% |" in text
    assert "| FGSM + PGD-7 | 100 | 101 | **missed** |" in text
    assert "| `snn-sparsity --help` | 1.000 (1.000-1.000) | 2: met |" in text
    assert "6: **missed**" in text


def test_tables_of_a_part_leave_the_rest_out():
    part = RESULT | {"arms": {"growth: T=5": {"ours": timed(1.0)}}, "profile": {}, "peak_mib": {}, "start_up": {}}
    assert [line for line in markdown(part).splitlines() if line.startswith("| ---")] == ["| --- | --- |"]


def test_the_picture_is_drawn(tmp_path):
    draw(RESULT, tmp_path / "cpu.png")
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")
