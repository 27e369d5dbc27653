"""How processors round: settled in one place, for the command line and for a program of one's own alike."""

import torch


def settle_numerics(tf32: bool = False) -> None:
    """Let denormal numbers be zero, and say whether a GPU may round the factors of products to TF32's 10 bits.

    Numbers below 1.2e-38 make a CPU many times slower, and Adam with L2 decay drives weights there. PyTorch's threads inherit that
    setting when they start: call this before anything computes. PyTorch's own default is TF32 for convolutions and not for matrix
    products; here both are float32, so that a GPU's spikes are those of a CPU. ``SpikingClassifier`` and the command line call it; to
    train with TF32, call it once more with ``True`` after making the classifier. ``run.json`` records what was in force.

    Args:
        tf32: Whether convolutions and matrix products may use TF32.

    Example:
        >>> settle_numerics()
        >>> numerics()
        {'flush_denormal': True, 'tf32_convolutions': False, 'tf32_products': False}
    """
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def numerics() -> dict[str, bool]:
    """Return what is in force, in the words of ``run.json``."""
    return {
        "flush_denormal": bool((torch.tensor(1e-38) * 0.1 == 0).item()),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
    }
