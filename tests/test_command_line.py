"""What the command line tells before it computes: help, settings and where they come from, mistakes, pipes that close."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from snn_sparsity.commands.main import main
from snn_sparsity.commands.mistakes import ROOTS
from snn_sparsity.commands.refusals import REFUSED
from snn_sparsity.commands.signatures import kinds_of, parameters_of, trainer_settings
from snn_sparsity.commands.tree import Tree, parse
from snn_sparsity.configs import shipped
from snn_sparsity.sweep.grid import DIRECTORY
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError
from tests.test_cli import FEW, TINY, error, resolved

pytestmark = pytest.mark.usefixtures("elsewhere")
ROOT = Path(__file__).parents[1]
HEAVY = "{'torch', 'lightning', 'jsonargparse', 'matplotlib', 'scipy'}"


def python(code, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, **options)


# Help -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", Tree().commands)
def test_help_is_short_and_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) <= 60
    assert f"\n  snn-sparsity {command} " in printed


def test_neither_help_nor_mistakes_import_anything_heavy():
    commands = [[name, "--help"] for name in Tree().commands]
    mistakes = [["fit", "--trainer.max_epoch", "3"], ["fit", "--config", "dmeo"], ["test"], ["predict", "--ckpt_path", "none"],
                ["fit", "--probes.pgd.atack", "PGD"], ["sweep", "--grid", "none"], ["report"],
                ["report", "none"], ["plot", "none"], ["fit", "--trainer.callbacks", "EarlyStoping"]]  # fmt: skip
    code = f"""
import sys
from snn_sparsity.commands.main import main
for words in {commands!r}:
    try:
        main(words)
    except SystemExit:
        pass
assert [main(words) for words in {mistakes!r}] == [2] * {len(mistakes)}
assert not {HEAVY} & set(sys.modules)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_all_help_is_lightning_s(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help-all"])
    printed = capsys.readouterr().out
    assert "--trainer.gradient_clip_val" in printed
    assert "--model.network" in printed


def test_settings_say_what_they_are(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "demo", "--print_config"])
    lines = capsys.readouterr().out.splitlines()
    for name in ("lr: 0.0005", "batch_size: 16", "steps: 7", "num_steps: 8", "max_epochs: 4"):
        place = next(number for number, line in enumerate(lines) if line.strip() == name)
        assert lines[place - 1].strip().startswith("#"), name
    assert not any("known subclasses" in line for line in lines)


def test_help_offers_nothing_that_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--print_config"])
    printed = " ".join(capsys.readouterr().out.replace("#", " ").split())
    assert "random seed" not in printed
    assert "Not every value is allowed here: spikes and probes are float32; give 32-true." in printed
    assert printed.count("Not every value is allowed here") == len(REFUSED)


# Where settings come from ----------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_files_and_loses_to_the_command_line(capsys, monkeypatch):
    """The README's line, and each neighbour of it."""
    monkeypatch.setenv("SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS", "7")
    monkeypatch.setenv("SNN_SPARSITY_FIT__PROBES__PGD__ATTACK__EPS", "4/255")
    monkeypatch.setenv("SNN_SPARSITY_FIT__DATA__INIT_ARGS__ENCODER__INIT_ARGS__NUM_STEPS", "3")
    monkeypatch.setenv("SNN_SPARSITY_TEST__TRAINER__MAX_EPOCHS", "9")
    Path("small.yaml").write_text("trainer: {max_epochs: 3}\n")
    config = resolved(capsys, "--config", "demo", "--config", "small.yaml")
    assert config["trainer"]["max_epochs"] == 7
    assert config["probes"]["pgd"]["init_args"]["attack"]["init_args"]["eps"] == "4/255"
    assert config["data"]["init_args"]["encoder"]["init_args"]["num_steps"] == 3
    monkeypatch.delenv("SNN_SPARSITY_FIT__DATA__INIT_ARGS__ENCODER__INIT_ARGS__NUM_STEPS")
    assert resolved(capsys, "--config", "demo", "--trainer.max_epochs", "8")["trainer"]["max_epochs"] == 8
    # Wherever the file stands, what the command line says itself wins; of two files the last.
    assert resolved(capsys, "--trainer.max_epochs", "8", "--config", "small.yaml")["trainer"]["max_epochs"] == 8
    monkeypatch.delenv("SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS")
    assert resolved(capsys, "--config", "small.yaml", "--config", "demo")["trainer"]["max_epochs"] == 4
    monkeypatch.setenv("SNN_SPARSITY_FIT__CONFIG", "demo")
    assert resolved(capsys, "--config", "small.yaml")["trainer"]["max_epochs"] == 3


def test_the_environment_is_heard_by_every_command():
    environment = {"SNN_SPARSITY_REPORT__OUT": "there", "SNN_SPARSITY_SWEEP__TEST": "true", "SNN_SPARSITY_AUDIT__EPS": "2/255",
                   "SNN_SPARSITY_PREDICT__IMAGES": "folder", "SNN_SPARSITY_CACHE": "cache"}  # fmt: skip
    assert parse(["report", "runs"], environment).out == Path("there")
    assert parse(["report", "runs", "--out", "here"], environment).out == Path("here")
    assert parse(["sweep", "--grid", "digits"], environment).test is True
    assert parse(["sweep", "--grid", "digits", "--test", "false"], environment).test is False
    assert parse(["audit"], environment).eps == 2 / 255
    assert parse(["predict"], environment).images == "folder"
    with pytest.raises(InputError, match="--ouut"):
        parse(["report", "runs"], {"SNN_SPARSITY_REPORT__OUUT": "there"})


def test_a_mistyped_variable_is_told(capsys, monkeypatch):
    monkeypatch.setenv("SNN_SPARSITY_FIT__TRAINER__MAX_EPOCH", "7")
    assert "--trainer.max_epoch: the trainer has no such setting (did you mean max_epochs?)" in error(capsys, "fit")


def test_arguments_after_the_dashes_are_those_of_fit():
    assert parse(["sweep", "--grid", "digits", "--", "--model.lr", "1"], {}).more == ["--model.lr", "1"]


# Mistakes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fti"], "unknown command 'fti' (did you mean fit?)"),
        (["fit", "--modle.lr", "1"], "--modle: unknown setting (did you mean model?)"),
        (["fit", "--trainer.max_epoch=3"], "(did you mean max_epochs?)"),
        (["fit", "--config", "dmeo"], "--config dmeo is no file and no shipped configuration (did you mean demo?)"),
        (["fit", "--data.bach_size", "1"], "--data.bach_size: CIFARDataModule has no such setting (did you mean batch_size?)"),
        (["fit", "--data", "DigitsDataModule", "--data.name", "x"], "--data.name: DigitsDataModule has no such setting"),
        (["fit", "--data", "DigitDataModule"], "--data: there is no DigitDataModule (did you mean DigitsDataModule?)"),
        (["fit", "--data.encoder", "PhazeEncoder"], "--data.encoder: there is no PhazeEncoder (did you mean PhaseEncoder?)"),
        (["fit", "--model.network", "SEWResnet"], "(did you mean SEWResNet?)"),
        (["fit", "--model.network.init_args.poool", "max"], "--model.network.poool: SEWResNet has no such setting (did you mean pool?)"),
        (["fit", "--model.network.neuron.treshold", "1"], "(did you mean threshold?)"),
        (["fit", "--probes.pgd.attack", "PDG"], "--probes.pgd.attack: there is no PDG (did you mean PGD?)"),
        (["fit", "--probes.pgd.attack.stesp", "1"], "--probes.pgd.attack.stesp: PGD has no such setting (did you mean steps?)"),
        (["fit", "--probes.pgd.sapce", "image"], "(did you mean space?)"),
        (["fit", "--trainer.callbacks", "EarlyStoping"], "--trainer.callbacks: there is no EarlyStoping (did you mean EarlyStopping?)"),
        (["fit", "--trainer.callbacks+=lightning.pytorch.callbacks.Tiner"], "callbacks.Tiner (did you mean Timer?)"),
        (["fit", "--config", "callbacks.yaml"], "--trainer.callbacks.pacience: EarlyStopping has no such setting (did you mean patience?)"),
        (["fit", "--probes.pdg.max_samples", "3"], "--probes.pdg: there is no such probe to change (there are: codebook, fgsm, pgd, "),
        (["fit", "--config", "own.yaml", "--probes.pgd.max_samples", "3"], "--probes.pgd: there is no such probe to change (there are: mi"),
        (["fit", "--data", "ImageFolderDataModule"], "--data ImageFolderDataModule needs --data.root: where the images are"),
        (["fit", "--data", "ImageFolderDataModule", "--data.root", "none"], "data.root=none: none/train is no folder"),
        (["fit", "--data", "ArrayDataModule"], "--data ArrayDataModule needs --data.path"),
        (["fit", "--data", "ArrayDataModule", "--data.path", "none"], "data.path=none: there is no such file"),
        (["fit", "--config", "wrong.yaml"], "--config wrong.yaml: --model.netwrok: SpikingClassifier has no such setting"),
        (["fit", "--config", "itself.yaml"], "holds itself"),
        (["fit", "--config", "demo", "--config", "list.yaml"], "--trainer: settings by name are expected, not [1]"),
        (["fit", "--config", "demo", "--config", "number.yaml"], "--model: settings by name are expected, not 3"),
        (["fit", "--ckpt_path", "none"], "--ckpt_path none is no file"),
        (["validate"], "validate needs --ckpt_path: the checkpoint of a network"),
        (["predict", "--ckpt_path", "wrong.yaml", "--images", "none"], "--images none: no images there, for it is no folder"),
        (["audit", "--ckpt_path", "wrong.yaml", "--transfer_from", "none"], "--transfer_from none is no file"),
        (["audit", "--ckpt_path", "wrong.yaml", "--bugdet", "quick"], "(did you mean budget?)"),
        (["audit", "--ckpt_path", "wrong.yaml", "--claim", "PDG"], "--claim: there is no PDG (did you mean PGD?)"),
        (["audit", "--ckpt_path", "wrong.yaml", "--claim", "PGD", "--claim.step", "5"], "--claim.step: PGD has no such setting (did you m"),
        (["audit", "--compare", "wrong.yaml"], "audit --compare needs at least two audit.json files"),
        (["audit", "--compare", "wrong.yaml", "none.json"], "--compare none.json is no file"),
        (["audit", "--judge", "none.json"], "--judge none.json is no file"),
        (["audit", "--judge", "wrong.yaml"], "--judge wrong.yaml is not called audit.json: the audit of that name beside it would be over"),
        (["fit", "demo"], "fit: demo is neither an option nor the value of one (did you mean --config demo?)"),
        (["fit", "--model.lr=.1", "wrong.yaml"], "wrong.yaml is neither an option nor the value of one (did you mean --config wrong.y"),
        (["fit", "--model.lr", ".1", "nonsense"], "nonsense is neither an option nor the value of one"),
        (["sweep", "--grid", "digits", "--jobs", "0", "--print"], "--jobs=0 is not allowed: give a whole number of at least 1"),
        (["sweep", "--grid", "digits", "--jobs", "1000000", "--print"], "--jobs=1000000 is not allowed: give at most "),
        (["sweep", "--grid", "diggits"], "--grid diggits is no file and no grid (did you mean digits?)"),
        (["report", "runs", "--ouut", "x"], "(did you mean --out?)"),
    ],
)  # fmt: skip
def test_mistakes_are_seen_at_once_and_get_a_suggestion(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("snn_sparsity.commands.main.import_lightning", lambda: pytest.fail("too late"))
    Path("wrong.yaml").write_text("model: {netwrok: x}\n")
    Path("itself.yaml").write_text("data: &a {b: *a}\n")
    Path("list.yaml").write_text("trainer: [1]\n")
    Path("number.yaml").write_text("model: 3\n")
    Path("own.yaml").write_text("probes: {mine: {class_path: GradientSparsity}}\n")
    Path("callbacks.yaml").write_text("trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val/loss, pacience: 2}}]}\n")
    assert message in error(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "none"], "no runs found in none: there is no such folder"),
        (["keep", "."], "no runs found in .: give a folder such as"),
        (["experiment", "causal", "none"], "no runs found in none: there is no such folder"),
        (["experiment", "trail", "."], "no runs found in .: give a folder such as"),
        (["plot", "none"], "none is no run: there is no none/metrics.csv"),
        (["report", "runs", "--out", "-"], "--out: - is no folder"),
    ],
)
def test_missing_runs_are_told_before_anything_is_imported(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("snn_sparsity.commands.main.import_module", lambda name: pytest.fail("too late"))
    assert message in error(capsys, *arguments)


def test_classes_of_one_s_own_are_left_alone(capsys):
    given = [
        "--data",
        "tests.tiny.TinyDataModule",
        "--data.classes",
        "3",
        "--model.network",
        "tests.tiny.TinyNetwork",
        "--model.network.pool",
        "max",
    ]
    assert resolved(capsys, *given)["data"]["init_args"]["classes"] == 3


@pytest.mark.parametrize("file", [*shipped.DIRECTORY.glob("*.yaml"), ROOT / "tests/tiny.yaml"], ids=lambda file: file.name)
def test_no_shipped_configuration_is_refused(file):
    from snn_sparsity.commands.mistakes import check

    check(parse(["fit", "--config", str(file)], {}))


def test_test_and_validate_name_the_newest_best_checkpoint_of_the_configuration(capsys):
    for place, (name, seed) in enumerate([("demo", 1), ("demo+theory", 1), ("demo", 2), ("theory", 1)]):
        checkpoint = Path(f"runs/{name}/seed_{seed}/0/best.ckpt")
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        os.utime(checkpoint, (place, place))
    assert error(capsys, "test", "--config", "demo").endswith("the newest is runs/demo/seed_2/0/best.ckpt")
    assert error(capsys, "validate", "--config", "demo", "--config", "theory").endswith("runs/demo+theory/seed_1/0/best.ckpt")
    assert error(capsys, "audit").endswith("the newest is runs/theory/seed_1/0/best.ckpt")


def test_what_the_sources_say_is_what_the_classes_take():
    """The signatures read from text, against those of the classes themselves."""
    from lightning import Trainer

    from snn_sparsity import attacks, classifier, data, encoders, gradient_rules, networks, probes

    homes = (attacks, data, encoders, gradient_rules, networks, probes, classifier)
    compared = 0
    for name in [each for base in ("Attack", "Encoder", "Probe", "SpikeDataModule", "GradientRule", "Module") for each in kinds_of(base)]:
        kind, said = next((getattr(home, name) for home in homes if hasattr(home, name)), None), parameters_of(name)
        if inspect.isclass(kind) and said is not None and not inspect.isabstract(kind):
            taken = inspect.signature(kind).parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
                assert set(said) == set(taken), name
                compared += 1
    assert compared > 30
    assert set(trainer_settings()) == set(inspect.signature(Trainer).parameters)
    assert set(kinds_of("Encoder")) >= {"PhaseEncoder", "RateEncoder", "LatencyEncoder", "DirectEncoder"}


def test_all_settings_have_a_known_first_part(capsys):
    config = resolved(capsys)
    assert set(config) <= set(ROOTS)


# Pipes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["fit", "--help"], ["configs"], ["--version"], ["nonsense"], ["sweep", "--grid", "paper", "--print"]]
)
def test_a_reader_that_goes_away_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "snn_sparsity", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    # argparse swallows what it cannot write.
    assert done.returncode in ((2,) if arguments == ["nonsense"] else (0, 141))


def shell(command, **environment):
    """Run a shell's command with ``$PROGRAM`` for the program, and return its exit code and what it printed."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRAM": f"{sys.executable} -m snn_sparsity", **environment}
    done = subprocess.run(["sh", "-c", command], env=known, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_mistake_that_cannot_be_told_has_its_exit_code(closed):
    assert shell(f"$PROGRAM configs nope {closed}") == (2, "")


def test_standard_output_that_is_closed_is_no_error():
    assert shell("$PROGRAM configs >&-") == (0, "")


STOPPED = """
import os, signal, sys
from types import SimpleNamespace
from snn_sparsity.commands import main

def run(given):
    assert os.open(os.devnull, os.O_RDONLY) > 2, "a file has the number of a stream"
    print("a progress bar", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGINT)

main.import_module = lambda name: SimpleNamespace(run=run)
sys.argv[1:] = ["configs"]
main.console()
"""


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_command_without_streams_works_and_can_be_stopped(closed):
    assert shell(f'{sys.executable} -c "$STOPPED" {closed}', STOPPED=STOPPED) == (130, "")


def test_a_zero_byte_in_a_name_is_told(capsys):
    for words in (
        ["keep", str(ROOT), "--out"],
        ["predict", "--out"],
        ["audit", "--out"],
        ["configs", "demo"],
        ["sweep", "--grid", "cpu", "--root"],
    ):
        assert "'a\\x00b' is not allowed: no name can hold a zero byte" in error(capsys, *words, "a\0b")


@pytest.mark.long
@pytest.mark.parametrize("arguments", [["fit", "--config", "demo", "--print_config"], ["fit", "--help-all"]])
def test_a_reader_that_goes_away_from_lightning_is_no_error(arguments):
    test_a_reader_that_goes_away_is_no_error(arguments)


# Fractions ------------------------------------------------------------------------------------------------------------------


def test_a_fraction_is_a_number_and_is_written_as_one():
    assert [Levels(text) for text in ("8/255", " 8 / 255 ", "-8/255", "8/256", "1", "+.5e-1")] == [
        8 / 255,
        8 / 255,
        -8 / 255,
        1 / 32,
        1,
        0.05,
    ]
    assert [str(Levels(number)) for number in (8 / 255, 0.5, 0, 1, 2, float("inf"), 1.1 / 255)] == [
        "8/255", "0.5", "0.0", "1.0", "2.0", "inf", str(1.1 / 255)]  # fmt: skip
    for wrong in ("1/0", "8//255", "8/", "/255", "x", "", "1/2/3", "0x8/255", True, None, []):
        with pytest.raises(InputError, match="is not allowed"):
            Levels(wrong)


def test_fractions_are_read_from_everywhere_and_kept(capsys):
    Path("radius.yaml").write_text("probes: {pgd: {init_args: {attack: {init_args: {eps: 4/255, alpha: 0.00392156862745098}}}}}\n")
    pgd = resolved(capsys, "--config", "demo", "--config", "radius.yaml")["probes"]["pgd"]["init_args"]["attack"]["init_args"]
    assert (pgd["eps"], pgd["alpha"]) == ("4/255", "1/255")
    probes = resolved(capsys, "--probes.fgsm.attack.eps", "2 / 255", "--probes.codebook.attack.eps=0.0314")["probes"]
    attacks = {name: probe["init_args"]["attack"]["init_args"] for name, probe in probes.items() if probe["init_args"].get("attack")}
    assert (attacks["pgd"]["eps"], attacks["fgsm"]["eps"], attacks["codebook"]["eps"]) == ("8/255", "2/255", 0.0314)
    Path("ratio.yaml").write_text("probes: {ratio: {class_path: VulnerabilityRatio, init_args: {eps: 1/255}}}")
    assert resolved(capsys, "--config", "ratio.yaml")["probes"]["ratio"]["init_args"]["eps"] == "1/255"
    Path("again.yaml").write_text(yaml.safe_dump({"probes": probes}))
    assert resolved(capsys, "--config", "again.yaml")["probes"]["pgd"] == probes["pgd"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1/0", "--probes.pgd.attack.eps: '1/0' is not allowed: its denominator is 0"),
        ("x", "--probes.pgd.attack.eps: 'x' is not allowed: give a number or a fraction such as 8/255"),
        ("-8/255", "--probes.pgd.attack.eps=-8/255 is not allowed: give a number of at least 0"),
        ("256/255", "is not allowed: give a number of at least 0 and of at most 1, such as 8/255"),
    ],
)
def test_errors_name_the_option_as_it_was_given(given, message, capsys):
    assert message in error(capsys, "fit", "--config", "demo", "--probes.pgd.attack.eps", given)


def test_no_shipped_file_writes_a_level_as_a_long_number():
    for file in [*shipped.DIRECTORY.glob("*.yaml"), *DIRECTORY.glob("*.yaml"), ROOT / "snn_sparsity/reproduction/paper_tables.yaml"]:
        for line in file.read_text().splitlines():
            assert "0.0313" not in line, (file.name, line)


def test_records_write_fractions():
    arguments = ["--probes.pgd.attack.alpha", "2/255", "--probes.codebook", "null", "--probes.sparsity", "null"]
    assert main(["fit", *TINY, *FEW, *arguments]) == 0
    run = Path("runs/tiny/seed_3407/0")
    assert "alpha=2/255" in (run / "run.json").read_text()
    assert "alpha: 2/255" in (run / "config.yaml").read_text()


# Names of classes -----------------------------------------------------------------------------------------------------------


def test_a_short_name_means_our_class_first(capsys):
    network = resolved(capsys, "--model.network", "SEWResNet", "--model.network.depth", "34")["model"]["network"]
    assert network["class_path"].startswith("snn_sparsity.")
    assert network["init_args"]["depth"] == 34


# Imports --------------------------------------------------------------------------------------------------------------------


UNNEEDED = {"torchvision", "scipy", "matplotlib", "torch._dynamo", "sklearn", "pandas", "jinja2"}


@pytest.mark.parametrize("arguments", [["fit"], ["fit", "--config", "sew18_at"], ["test"]])
def test_settings_are_read_without_what_only_figures_tests_and_pages_need(arguments):
    code = f"""
import sys
from snn_sparsity.commands.main import main
try:
    main([*{arguments}, "--print_config"])
except SystemExit:
    pass
print("\\n", *sorted({UNNEEDED} & set(sys.modules)))
"""
    done = python(code)
    assert "seed_everything" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1].strip() == ""


def test_lightning_is_imported_without_what_nobody_needs():
    code = f"""
import sys
from snn_sparsity.commands.imports import import_lightning
import_lightning()
unneeded = {UNNEEDED} & set(sys.modules)
assert not unneeded, unneeded
import torchmetrics, torchvision, scipy, matplotlib, torch._dynamo
from lightning.pytorch.utilities.compile import OptimizedModule
import torch
assert isinstance(torch._dynamo.OptimizedModule(torch.nn.Linear(1, 1), torch._dynamo.disable), OptimizedModule)
assert not isinstance(torch.nn.Linear(1, 1), OptimizedModule)
from torchmetrics.classification import MulticlassAccuracy
assert MulticlassAccuracy(3, average='micro')(torch.tensor([0, 1]), torch.tensor([0, 2])) == 0.5
from spikingjelly.activation_based.model import sew_resnet
assert sew_resnet.load_state_dict_from_url is torch.hub.load_state_dict_from_url
assert torchvision.models.resnet18 and scipy.stats.spearmanr
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_imports_that_cannot_be_shortened_are_the_ordinary_ones():
    code = """
import lightning_utilities.core.imports as imports
del imports._version
from snn_sparsity.commands.imports import import_lightning
try:
    import_lightning()
finally:
    from importlib.metadata import version
    imports._version = version
import lightning, torchmetrics
assert lightning.Trainer
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
