"""The names under which numbers are logged, each once: probes and the classifier write them, figures, tables and the report read them.

A logged name is ``<statistic>/<...>``, about operations of the network, or ``<train, val, test or probe>/<value>``.
"""

# About an operation -------------------------------------------------------------------------------------------------------

GRAD_ZERO = "grad_zero"
"""Share of exact zeros in an operation's input gradient: ``grad_zero/<kind>/<NN>_<path>``."""
GRAD_TINY = "grad_tiny"
"""Share of entries of 1e-30 or less, the exact zeros among them: ``grad_tiny/<kind>/<NN>_<path>``."""
GRAD_NORM = "grad_norm"
"""Its L2 norm: ``grad_norm/<kind>/<NN>_<path>``."""
ZERO_ORIGIN = "zero_origin"
"""Share of zeros with a cause: ``zero_origin/<cause>/<kind>/<NN>_<path>``."""
CAUSES = ("sample", "time_step", "channel", "unread", "unselected", "rest")
"""Causes of zeros; each leaves to the next what it does not explain."""
POOL_WINDOWS = "pool_windows"
"""Share of a max pooling's windows with so many spikes: ``pool_windows/<count>/<NN>_<path>``."""
WINDOW_COUNTS = ("none", "one", "several")
POOL_TIE_SHARED_ZERO = "pool_tie_shared_zero"
"""Zeros at a max pooling's input if tied maxima shared the gradient: ``pool_tie_shared_zero/<NN>_<path>``."""
SATURATION = "surrogate_"
"""How the names of all statistics of neurons begin."""
SURROGATE_DISTANCE = f"{SATURATION}distance"
SURROGATE_UNSEEN = f"{SATURATION}unseen"
SURROGATE_VANISHING = f"{SATURATION}vanishing"
SURROGATE_FIRING_RATE = f"{SATURATION}firing_rate"
SURROGATE_SILENT = f"{SATURATION}silent"
SURROGATE_ALWAYS = f"{SATURATION}always"
SATURATIONS = (SURROGATE_DISTANCE, SURROGATE_UNSEEN, SURROGATE_VANISHING, SURROGATE_FIRING_RATE, SURROGATE_SILENT, SURROGATE_ALWAYS)
"""Statistics of a neuron layer: ``surrogate_<statistic>/<NN>_<path>``."""
TRAIL_INPUT_GRADIENT_ZERO = "trail_input_gradient_zero"
TRAIL_WEIGHT_GRADIENT_ZERO = "trail_weight_gradient_zero"
TRAIL_WEIGHT_ZERO = "trail_weight_zero"
TRAIL_WEIGHT_DENORMAL = "trail_weight_denormal"
TRAIL_WEIGHT_SMALL = "trail_weight_small"
TRAIL_WEIGHTS = (TRAIL_WEIGHT_GRADIENT_ZERO, TRAIL_WEIGHT_ZERO, TRAIL_WEIGHT_DENORMAL, TRAIL_WEIGHT_SMALL)
"""Shares of a layer's weights: ``trail_<...>/<NN>_<path>``, and of those that can see the image, :func:`reachable`."""
TRAIL_CORRELATION = "trail_correlation"
"""Correlation with the zeros of the input gradient: ``trail_correlation/<method>_<over>_<part>/<pair>/<NN>_<path>``."""
AT_ADVERSARIAL, WITH_BATCH_STATISTICS = "_adversarial", "_batchnorm_batch"
"""Behind a statistic whose gradient was taken so."""
STATISTICS = (
    GRAD_ZERO, GRAD_TINY, GRAD_NORM, ZERO_ORIGIN, POOL_WINDOWS, POOL_TIE_SHARED_ZERO, *SATURATIONS, TRAIL_INPUT_GRADIENT_ZERO,
    *TRAIL_WEIGHTS, TRAIL_CORRELATION,
)  # fmt: skip
"""All of them."""

# About a set of images ----------------------------------------------------------------------------------------------------

ACCURACY = "accuracy"
"""Share of images classified right: ``<val, test or probe>/accuracy``; also of the same images without attack."""
ACCURACY_INTERVAL = (f"{ACCURACY}_low", f"{ACCURACY}_high")
"""The ends of its 95 % interval."""
CLEAN_ACCURACY = "clean_accuracy"
IMAGES = "images"
"""How many images an accuracy is of."""
LOSS, CLEAN_LOSS = "loss", "clean_loss"
ZERO_GRADIENT_SAMPLES = "zero_gradient_samples"
LARGEST_PERTURBATION = "largest_perturbation"
MEASURED_RATIO, PREDICTED_RATIO, UPPER_BOUND = "measured_ratio", "predicted_ratio", "upper_bound"
RATIOS = (MEASURED_RATIO, PREDICTED_RATIO, UPPER_BOUND)
QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}
"""Of each ratio of Theorem 1: ``<probe>/<ratio>_<quartile>``."""
INSIDE_BOUNDS, FIRST_ORDER_OFF, LEFT_OUT = "inside_bounds", "first_order_off", "left_out"
FLOPS, SYNOPS, ENERGY, FIRING_RATE = "flops", "synops", "energy", "firing_rate"
NOISE, DIVERGENCE, PENALTY, GRADIENT_ZEROS = "noise", "divergence", "penalty", "gradient_zeros"
"""What objectives of training log beside their loss: ``train/<value>``."""
VALUES = (
    ACCURACY, *ACCURACY_INTERVAL, CLEAN_ACCURACY, IMAGES, LOSS, CLEAN_LOSS, ZERO_GRADIENT_SAMPLES, LARGEST_PERTURBATION,
    *(f"{ratio}_{quartile}" for ratio in RATIOS for quartile in QUARTILES), INSIDE_BOUNDS, FIRST_ORDER_OFF, LEFT_OUT, FLOPS, SYNOPS, ENERGY,
    FIRING_RATE,    NOISE, DIVERGENCE, PENALTY, GRADIENT_ZEROS,
)  # fmt: skip
"""All of them."""

TRAIN_LOSS = f"train/{LOSS}"
TRAIN_LOSS_EPOCH = f"{TRAIN_LOSS}_epoch"
"""Its mean over an epoch, the last number that an epoch logs; Lightning adds ``_epoch``, and ``_step`` to that of a step."""


def accuracy_of(group: str) -> str:
    """Return the name of an accuracy: of ``val``, of ``test``, or under the attack of a probe.

    Example:
        >>> accuracy_of("pgd")
        'pgd/accuracy'
    """
    return f"{group}/{ACCURACY}"


def mean_of(statistic: str) -> str:
    """Return what the mean of a statistic over the operations of a kind is logged as.

    Example:
        >>> mean_of(GRAD_ZERO)
        'grad_zero_mean'
    """
    return f"{statistic}_mean"


def reachable(statistic: str) -> str:
    """Return what a share of weights is logged as when it is taken over those alone that can see the image.

    Example:
        >>> reachable(TRAIL_WEIGHT_ZERO)
        'trail_weight_zero_reachable'
    """
    return f"{statistic}_reachable"


def seconds_of(probe: str | None) -> str:
    """Return the name of the wall-clock time that a probe took in an epoch.

    Example:
        >>> seconds_of("pgd")
        'time/pgd_seconds'
    """
    return f"time/{probe}_seconds"
