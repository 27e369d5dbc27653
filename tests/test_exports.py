"""What a library user imports, and that importing it costs nothing until it is used."""

import importlib
import subprocess
import sys

import pytest

import snn_sparsity
from snn_sparsity.attacks import PGD


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import snn_sparsity; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ours = {name for name in loaded if name.startswith("snn_sparsity")}
    assert ours == {"snn_sparsity"}
    # The standard library's importlib may bring some small modules of its own.
    assert not {name.split(".")[0] for name in loaded} - {"snn_sparsity"} - sys.stdlib_module_names


@pytest.mark.parametrize("name", snn_sparsity.__all__)
def test_every_public_name_is_there(name):
    assert getattr(snn_sparsity, name) is not None
    assert name in dir(snn_sparsity)


def test_the_audit_is_there_and_can_be_called_when_nothing_else_was_imported():
    # Its name is a package's too: once anything has imported that, it is there by itself.
    code = "import snn_sparsity, sys; print(callable(snn_sparsity.audit), 'audit' in dir(snn_sparsity), 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "True True False\n"


def test_the_audit_is_one_thing_however_it_is_imported():
    from snn_sparsity.audit import audit

    assert audit is snn_sparsity.audit is importlib.import_module("snn_sparsity.audit")


def test_a_public_name_is_the_thing_itself():
    assert snn_sparsity.PGD is PGD
    from snn_sparsity import CIFARDataModule, Probe, SEWResNet, SpikingClassifier

    assert [each.__name__ for each in (SpikingClassifier, SEWResNet, CIFARDataModule, Probe)] == [
        "SpikingClassifier", "SEWResNet", "CIFARDataModule", "Probe",
    ]  # fmt: skip


def test_an_unknown_name_is_an_error_of_its_own():
    with pytest.raises(AttributeError, match="'nonsense'"):
        snn_sparsity.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        from snn_sparsity import nonsense  # noqa: F401
