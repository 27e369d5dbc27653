"""One process and many give the same numbers: real gloo processes, see tests/ddp_job.py for what they do."""

import csv
import json
import math
import os
import signal
import time

import pytest
import torch

from tests.processes import ROOT, finish, free_port, start

SEVERAL = [2, pytest.param(3, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """What each process of the job has to say, by the number of processes."""
    done = {}

    def of(processes):
        for count in {1, processes} - done.keys():
            folder = tmp_path_factory.mktemp(f"processes_{count}")
            code, output = finish(start("-m", "tests.ddp_job", folder, count))
            assert code == 0, output[-3000:]
            done[count] = [torch.load(folder / f"{rank}.pt") for rank in range(count)]
        return done[1][0], done[processes]

    return of


def differing(one, other):
    """Names whose values are not exactly equal; the mean loss, summed up on each process first, may differ in its rounding."""
    assert one.keys() == other.keys()
    same = {name: math.isclose(value, other[name], rel_tol=1e-6) if name in ("val/loss", "test/loss") else value == other[name]
            for name, value in one.items() if not math.isnan(value)}  # fmt: skip
    return [name for name, equal in same.items() if not equal]


@pytest.mark.parametrize("processes", SEVERAL)
def test_training_is_that_of_one_process(job, processes):
    alone, ranks = job(processes)
    assert len(alone["fit"]["losses"]) == 20
    assert len(set(alone["fit"]["losses"])) == 20
    for rank in ranks:
        assert rank["fit"]["losses"] == pytest.approx(alone["fit"]["losses"], rel=0, abs=1e-5)
        assert rank["fit"]["weights"].keys() == alone["fit"]["weights"].keys()
        for name, value in alone["fit"]["weights"].items():
            torch.testing.assert_close(rank["fit"]["weights"][name], value, rtol=0, atol=1e-5, msg=name)
        assert rank["fit"]["metrics"] == pytest.approx(alone["fit"]["metrics"], rel=1e-5, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("processes", SEVERAL)
def test_training_against_attacks_is_that_of_one_process(job, processes):
    alone, ranks = job(processes)
    for rank in ranks:
        assert rank["defended"].keys() == alone["defended"].keys()
        for name, (losses, weights) in alone["defended"].items():
            assert len(set(losses)) == 8
            assert rank["defended"][name][0] == pytest.approx(losses, rel=0, abs=1e-5), name
            for parameter, value in weights.items():
                torch.testing.assert_close(rank["defended"][name][1][parameter], value, rtol=0, atol=1e-5, msg=f"{name} {parameter}")


@pytest.mark.parametrize("processes", SEVERAL)
def test_every_number_of_every_probe_is_exactly_that_of_one_process(job, processes):
    alone, ranks = job(processes)
    names = alone["validate"].keys()
    assert names >= {"fgsm/accuracy", "pgd/accuracy", "codebook/accuracy", "val/accuracy", "grad_zero/neuron/03_sn1", "grad_norm_mean/bn"}
    assert len(names) > 300
    for rank in ranks:
        for evaluation in ("validate", "test", "drawn code", "five images", "twelve images"):
            assert differing(alone[evaluation], rank[evaluation]) == [], evaluation


@pytest.mark.parametrize("processes", SEVERAL)
def test_a_plain_module_has_the_numbers_of_one_process(job, processes):
    alone, ranks = job(processes)
    _, expected = alone["plain"]
    assert expected["places/count"] == 37
    for rank in ranks:
        fitted, tested = rank["plain"]
        assert fitted.keys() >= {"pgd/accuracy", "grad_zero/conv/01_layers.0", "places/count"}
        assert fitted["places/count"] == 37
        drawn = {name for name in tested if name.startswith("places/") and name != "places/count"}
        assert {name: tested[name] for name in tested.keys() - drawn} == pytest.approx(
            {name: expected[name] for name in expected.keys() - drawn}, rel=1e-5
        )


@pytest.mark.parametrize("processes", SEVERAL)
def test_each_image_is_counted_once_and_draws_do_not_depend_on_processes(job, processes):
    for rank in job(processes)[1]:
        counts = {evaluation: rank[evaluation]["places/count"] for evaluation in ("validate", "test", "five images", "twelve images")}
        assert counts == {"validate": 37, "test": 37, "five images": 5, "twelve images": 12}
        # Batches of eight begin at 0, 8, 16, 24 and 32; the last has five images.
        assert rank["validate"]["places/first"] == pytest.approx((8 * (8 + 16 + 24) + 5 * 32) / 37)


@pytest.mark.parametrize("processes", SEVERAL)
def test_validate_gives_the_numbers_of_fit(job, processes):
    for rank in job(processes)[1]:
        in_fit = {name: value for name, value in rank["fit"]["metrics"].items() if not name.startswith("train/")}
        assert in_fit == rank["fit"]["validate"]


@pytest.mark.parametrize("processes", SEVERAL)
@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        ("failure", "RuntimeError", "probe 'fails' (Fails) failed: by nothing"),
        ("late failure", "RuntimeError", "probe 'fails' (Fails) failed: by nothing"),
        ("mistake", "InputError", "probes.fails: eps is wrong"),
    ],
)
def test_an_error_of_one_process_stops_all_with_that_error(job, processes, failure, kind, message):
    for number, rank in enumerate(job(processes)[1]):
        assert rank[failure] == (kind, message if number == 1 else f"{message} (on process 1)")


@pytest.mark.parametrize("processes", SEVERAL)
def test_a_refusal_of_the_first_process_stops_all(job, processes):
    assert [rank["refusal"] for rank in job(processes)[1]] == [("InputError", "no room")] * processes


# The command line ------------------------------------------------------------------------------------------------------------

FIT = [
    *("fit", "--config", ROOT / "tests/tiny.yaml", "--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1),
    *("--data.train_images", 40, "--data.test_images", 20, "--data.eval_batch_size", 8, "--data.validation", "test"),
    *("--trainer.sync_batchnorm", "true", "--probes.pgd", "null", "--probes.codebook", "null"),
]


def what_it_logged(folder):
    (metrics,) = folder.glob("runs/tiny/seed_3407/*/metrics.csv")
    assert metrics.parent.name == "0"
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["name"].startswith("time/")]
    weights = torch.load(metrics.with_name("last.ckpt"))["state_dict"]
    return {(row["name"], row["step"]): float(row["value"]) for row in rows}, weights


TWO = ["--data.batch_size", 4, "--trainer.devices", 2, "--trainer.strategy", "ddp"]


def wait_for(process, metrics, epochs):
    """Wait until so many epochs have been logged."""
    while not metrics.exists() or metrics.read_text().count("train/loss_epoch") < epochs:
        assert process.poll() is None, finish(process)
        time.sleep(0.05)


@pytest.mark.long
def test_killed_it_goes_on_to_the_same_bytes(tmp_path):
    folders = [tmp_path / name for name in ("unbroken", "killed")]
    for folder in folders:
        folder.mkdir()
    fit = ["-m", "snn_sparsity", *FIT, *TWO, "--trainer.max_epochs", 6]
    killed = start(*fit, cwd=folders[1])
    wait_for(killed, folders[1] / "runs/tiny/seed_3407/0/metrics.csv", 3)
    killed.kill()
    finish(killed)
    for folder, options in zip(folders, ([], ["--resume"]), strict=True):
        code, output = finish(start(*fit, *options, cwd=folder))
        assert code == 0, output
    (expected_metrics, expected_weights), (metrics, weights) = map(what_it_logged, folders)
    assert metrics == pytest.approx(expected_metrics, rel=0, abs=0, nan_ok=True)
    assert all(torch.equal(weights[name], value) for name, value in expected_weights.items())
    assert weights.keys() == expected_weights.keys()
    assert len(list(folders[1].glob("runs/tiny/seed_3407/*"))) == 1


@pytest.mark.long
def test_two_nodes_give_the_numbers_of_one_process(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    code, output = finish(start("-m", "snn_sparsity", *FIT, "--data.batch_size", 8, cwd=tmp_path / "one"))
    assert code == 0, output
    torchrun = ["-m", "torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1, "--master_addr", "127.0.0.1"]
    torchrun += ["--master_port", free_port()]
    program = ["-m", "snn_sparsity", *FIT, "--data.batch_size", 4, "--trainer.num_nodes", 2, "--trainer.devices", 1]
    nodes = [start(*torchrun, "--node_rank", rank, *program, cwd=tmp_path / "two") for rank in range(2)]
    for code, output in map(finish, nodes):
        assert code == 0, output
    (metrics, weights), (expected_metrics, expected_weights) = (what_it_logged(tmp_path / name) for name in ("two", "one"))
    assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-5)
    assert len([step for name, step in metrics if name == "train/loss_step"]) == 10
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("number", "send", "exit_code"),
    [
        (signal.SIGINT, os.kill, 130),
        pytest.param(signal.SIGTERM, os.kill, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, os.killpg, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, os.killpg, 143, marks=pytest.mark.long),
    ],
    ids=["Ctrl-C alone", "SIGTERM alone", "Ctrl-C to all", "SIGTERM to all"],
)
def test_stopped_by_hand_all_processes_end(number, send, exit_code, tmp_path):
    process = start("-m", "snn_sparsity", *FIT, *TWO, "--trainer.max_epochs", 1000, cwd=tmp_path)
    metrics = tmp_path / "runs/tiny/seed_3407/0/metrics.csv"
    wait_for(process, metrics, 2)
    send(process.pid, number)
    code, output = finish(process)
    assert code == exit_code, output
    assert "with --resume the same command goes on" in output
    assert "Traceback" not in output
    assert json.loads(metrics.with_name("run.json").read_text())["status"] == "interrupted"


@pytest.mark.long
def test_a_mistake_that_one_process_finds_ends_the_command_in_one_line(tmp_path):
    # Only the second process gets a batch on which this probe fails.
    probe = ["--probes.fails", "tests.ddp_job.RefusesTheSecondBatch"]
    code, output = finish(start("-m", "snn_sparsity", *FIT, *probe, "--trainer.devices", 2, "--trainer.strategy", "ddp", cwd=tmp_path))
    assert code == 2, output
    assert "snn-sparsity: error: probes.fails: not these images (on process 1)" in output
    assert "Traceback" not in output
