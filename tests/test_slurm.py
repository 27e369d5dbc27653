"""The batch scripts with stand-ins for SLURM: ``srun`` starts the program, ``scontrol requeue`` stops it, as SLURM would."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "slurm/fit.sbatch"
PATIENCE = 60


def program(path, text):
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)


@pytest.fixture
def submit(tmp_path):
    """Run the script as a job of two nodes with four tasks each; ``fit`` is what the given lines do."""
    program(tmp_path / "srun", 'echo "$@" > srun.txt\nshift\nexec "$@"\n')
    program(tmp_path / "scontrol", 'echo "$@" > scontrol.txt\nkill -TERM "$(cat fit.pid)"\n')

    def run(fit, *options):
        program(tmp_path / "fit", fit)
        slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "17", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SNN_SPARSITY": str(tmp_path / "fit")}
        return subprocess.Popen(["bash", str(SCRIPT), *options], env=os.environ | slurm | path)

    return run


def test_a_task_is_a_process_of_the_run(submit, tmp_path):
    assert submit("exit 0", "--config", "demo", "--data.batch_size", "4").wait(PATIENCE) == 0
    given = (tmp_path / "srun.txt").read_text().split()
    expected = "fit --resume --trainer.num_nodes 2 --trainer.devices 4 --trainer.strategy ddp --config demo --data.batch_size 4"
    assert given == ["--kill-on-bad-exit=1", str(tmp_path / "fit"), *expected.split()]
    assert not (tmp_path / "scontrol.txt").exists()


def test_a_failure_is_the_job_s(submit):
    assert submit("exit 3").wait(PATIENCE) == 3


def test_the_signal_before_the_time_limit_requeues_the_job(submit, tmp_path):
    job = submit("trap 'exit 143' TERM\necho $$ > fit.pid\nwhile :; do sleep 0.1; done\n")
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "fit.pid").exists() or not (tmp_path / "fit.pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE) == 143
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 17\n"


def test_slurm_is_asked_for_what_the_script_counts_on():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", SCRIPT.read_text(), re.M))
    assert asked["signal"] == "B:USR1@90"  # B: to the script, not to the tasks
    assert {"requeue", "open-mode"} <= asked.keys()
    assert asked["gres"] == f"gpu:{asked['ntasks-per-node']}"
