"""The command line, killed in its n-th training step: ``python -m benchmarks.gpu_proof.killed 25 fit ...``."""

import os
import signal
import sys
from itertools import count
from typing import Any

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main

if __name__ == "__main__":
    last, steps, train = int(sys.argv[1]), count(1), SpikingClassifier.training_step

    def training_step(self: SpikingClassifier, *given: Any, **named: Any) -> Any:
        """Die, or train on."""
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(self, *given, **named)

    SpikingClassifier.training_step = training_step  # type: ignore[method-assign]
    sys.argv = ["snn-sparsity", *sys.argv[2:]]
    sys.exit(main(sys.argv[1:]))
