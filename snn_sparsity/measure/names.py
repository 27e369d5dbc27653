"""The names under which numbers are logged, each once: probes and the classifier write them, figures, tables and the report read them.

A logged name is ``<statistic>/<...>`` or ``<stage or probe>/<value>``; its parts are joined with slashes.
"""

GRAD_ZERO = "grad_zero"
"""Share of exact zeros in an operation's input gradient: ``grad_zero/<kind>/<NN>_<path>``."""
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
TRAIL_CORRELATION = "trail_correlation"
"""Correlation with the zeros of the input gradient: ``trail_correlation/<method>_<over>_<part>/<pair>/<NN>_<path>``."""

ACCURACY = "accuracy"
"""Share of images classified right: ``<val, test or probe>/accuracy``; also of the same images without attack."""
CLEAN_ACCURACY = "clean_accuracy"
IMAGES = "images"
"""How many images an accuracy is of."""


def mean_of(statistic: str) -> str:
    """Return what the mean of a statistic over the operations of a kind is logged as.

    Example:
        >>> mean_of(GRAD_ZERO)
        'grad_zero_mean'
    """
    return f"{statistic}_mean"


def accuracy_of(group: str) -> str:
    """Return the name of an accuracy: of ``val``, of ``test``, or under the attack of a probe.

    Example:
        >>> accuracy_of("pgd")
        'pgd/accuracy'
    """
    return f"{group}/{ACCURACY}"
