"""The proof that needs a GPU: its CPU half, and that it can fail."""

import json
import sys

import pytest
import torch

from benchmarks.gpu_proof import __main__ as proof
from benchmarks.gpu_proof import exactness, page, runs, speed
from benchmarks.gpu_proof.claims import Place, judged, measured, not_run
from snn_sparsity.networks.neurons import FusedIFNode


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_proof", *map(str, arguments)])
    return proof.main()


def on_a_cpu(folder):
    return Place("cpu", folder, None)


def test_every_neuron_of_the_package_is_proved_in_every_layout(tmp_path):
    claims = list(exactness.neurons(on_a_cpu(tmp_path)))
    assert {claim.status for claim in claims} == {"PASS"}
    kinds = {"FusedIFNode", "FusedLIFNode", "FusedParametricLIFNode", "LeakyNode"}
    assert {claim.name for claim in claims} == {f"neuron {kind}, {layout}" for kind in kinds for layout in exactness.LAYOUTS}


def test_a_kind_that_is_not_proved_and_spikes_that_differ_fail(tmp_path, monkeypatch):
    monkeypatch.delitem(exactness.MADE, FusedIFNode)
    monkeypatch.setitem(exactness.LAYOUTS, "transposed", lambda x: x + 0.01)
    failed = {claim.name for claim in exactness.neurons(on_a_cpu(tmp_path)) if claim.fails}
    assert failed == {"neuron FusedIFNode"} | {
        f"neuron {kind}, transposed" for kind in ("FusedLIFNode", "FusedParametricLIFNode", "LeakyNode")
    }


def test_a_race_is_won_or_lost_by_its_interval():
    slower = speed.Ratio.of([0.8, 0.85, 0.9, 0.9, 0.95, 0.99, 0.8, 0.9, 0.7, 1.3])
    assert (slower.value, slower.low, slower.high) == (0.9, 0.8, 0.99), "the second lowest and second highest of ten"
    assert speed.Ratio.of([0.5, 0.6, 0.7]).high == float("inf"), "three pairs tell nothing"


def test_less_accurate_is_told_over_networks_and_not_over_images():
    found, holds = runs.compared([0.892, 0.90, 0.91], [0.903, 0.95, 0.88])
    assert holds
    assert "-1.0 points [-" in found
    assert not runs.compared([0.80, 0.81, 0.82], [0.90, 0.91, 0.92])[1]


def test_one_flipped_spike_is_told_from_none():
    spikes = torch.zeros(100_001)
    flipped = spikes.clone()
    flipped[0] = 1
    more = flipped.clone()
    more[1] = 1
    same = {"logits": torch.tensor([[0.0, 1.0]]), "gradient": torch.ones(2), "fgsm": torch.ones(2)}
    one = exactness._compared("x", False, same | {"spikes sn": spikes}, same | {"spikes sn": flipped})
    two = exactness._compared("x", False, same | {"spikes sn": spikes}, same | {"spikes sn": more})
    assert (one.status, two.status) == ("PASS", "FAIL")
    assert one.found.startswith("1 of 100001 spikes differ, the first in spikes sn")


def test_the_page_says_what_fails_first_and_what_to_do(tmp_path):
    claims = [
        judged("a", "b", "c", True, "d"),
        judged("wrong", "b", "c", False, "mend it"),
        measured("m", "1 ms"),
        not_run("n", "no GPU", excused=True),
    ]
    page.write(tmp_path, {"device": "cpu", "command": "x", "seconds": 1.0}, {"some": claims})
    kept = json.loads((tmp_path / "proof.json").read_text())
    assert kept["counts"] == {"PASS": 1, "FAIL": 1, "NOT RUN": 1, "MEASURED": 1}
    assert [claim["status"] for claim in kept["parts"]["some"]] == ["PASS", "FAIL", "MEASURED", "NOT RUN"]
    text = (tmp_path / "proof.md").read_text()
    assert text.index("| FAIL | wrong | c | mend it |") < text.index("## some")
    assert "<table" in (tmp_path / "proof.html").read_text()
    assert [claim.fails for claim in claims] == [False, True, False, False]


def test_a_part_that_is_killed_loses_only_itself(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--device", "cpu", "--out", tmp_path / "out", "--within", "0.2", "--part", "neurons", "versions") == 1
    kept = json.loads((tmp_path / "out" / "proof.json").read_text())["parts"]
    assert [claim["name"] for claim in kept["neurons"]] == ["part neurons"]
    assert "no time was left" in kept["neurons"][0]["found"]
    monkeypatch.setattr(proof, "ON_A_CPU", 1)
    assert run(monkeypatch, "--device", "cpu", "--out", tmp_path / "more", "--part", "versions") == 1
    (claim,) = json.loads((tmp_path / "more" / "proof.json").read_text())["parts"]["versions"]
    assert claim["status"] == "FAIL"
    assert claim["found"].startswith("killed after 1 s")


def test_claims_before_a_crash_are_kept(tmp_path, monkeypatch):
    def half(place):
        yield measured("first", "1")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(exactness, "versions", half)
    with pytest.raises(RuntimeError, match="out of memory"):
        proof.run_part("versions", on_a_cpu(tmp_path))
    (line,) = (tmp_path / "claims.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "first"


@pytest.mark.long
def test_the_half_that_needs_no_gpu_holds(tmp_path, monkeypatch):
    assert run(monkeypatch, "--device", "cpu", "--out", tmp_path / "out") == 0
    kept = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert set(kept["parts"]) == set(proof.PARTS)
    assert kept["counts"]["FAIL"] == 0
    statuses = {claim["name"]: claim["status"] for claims in kept["parts"].values() for claim in claims}
    assert statuses["killed in the second epoch and resumed"] == "PASS"
    assert statuses["two ranks on one CPU (gloo)"] == "PASS"
