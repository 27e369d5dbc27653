"""The spiking neuron of a network, with every number that changes its gradient in the open."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from spikingjelly.activation_based import neuron, surrogate

from snn_sparsity.checks import require_choice, require_number

SURROGATES: dict[str, Callable[..., surrogate.SurrogateFunctionBase]] = {
    "atan": surrogate.ATan,
    "sigmoid": surrogate.Sigmoid,
    "piecewise_quadratic": surrogate.PiecewiseQuadratic,
    "rect": surrogate.Rect,
}


@dataclass(frozen=True)
class IFNeuron:
    """Recipe of an integrate-and-fire neuron: ``neuron.build()`` makes a fresh SpikingJelly ``IFNode``.

    ``u[t] = v[t-1] + x[t]``; it fires where ``u[t] >= threshold`` and is then reset. Backwards the step is replaced by the
    surrogate; for ``atan``, ``alpha / (2 (1 + (pi/2 alpha (u - threshold))^2))`` (the paper's equation 4).

    Args:
        threshold: V_th, above 0.
        reset: Membrane potential after a spike (hard reset); null subtracts the threshold instead (soft reset).
        surrogate: Shape of the surrogate gradient.
        alpha: Its sharpness, above 0.
        detach_reset: Whether the reset is left out of the backward pass.

    Raises:
        InputError: For an unknown surrogate or a number outside its range.

    Example:
        Inputs 0.6 and 0.6: the second crosses the threshold.

        >>> node = IFNeuron().build()
        >>> node.step_mode = "m"
        >>> node(torch.tensor([[0.6], [0.6]])).flatten().tolist()
        [0.0, 1.0]
    """

    threshold: float = 1.0
    reset: float | None = 0.0
    surrogate: Literal["atan", "sigmoid", "piecewise_quadratic", "rect"] = "atan"
    alpha: float = 2.0
    detach_reset: bool = True

    def __post_init__(self) -> None:
        require_number("threshold", self.threshold, above=0)
        require_choice("surrogate", self.surrogate, SURROGATES)
        require_number("alpha", self.alpha, above=0)

    def build(self) -> neuron.IFNode:
        """Return a new neuron layer without state."""
        return neuron.IFNode(
            v_threshold=self.threshold,
            v_reset=self.reset,
            surrogate_function=SURROGATES[self.surrogate](alpha=self.alpha),
            detach_reset=self.detach_reset,
        )
