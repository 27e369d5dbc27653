"""The spiking neuron of a network, with every number that changes its gradient in the open, and fused to run fast."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from snn_sparsity.networks.fused import Charge, Dynamics, compiled, fused_steps
from snn_sparsity.validation import InputError, require_choice, require_number

SURROGATES: dict[str, Callable[..., surrogate.SurrogateFunctionBase]] = {
    "atan": surrogate.ATan,
    "sigmoid": surrogate.Sigmoid,
    "piecewise_quadratic": surrogate.PiecewiseQuadratic,
    "rect": surrogate.Rect,
}
KERNELS = ("auto", "spikingjelly", "fused")

INTEGRATE = Charge("v + x", "g", "g")
LEAK = Charge("v - (v - rest) / leak + x", "g", "g - g / leak")
LEAK_WITH_INPUT = Charge("v + (x - (v - rest)) / leak", "g / leak", "g - g / leak")
LEARNT_LEAK = Charge("v - (v - rest) * leak + x", "g", "g - g * leak", "-(v - rest)")
LEARNT_LEAK_WITH_INPUT = Charge("v + (x - (v - rest)) * leak", "g * leak", "g - g * leak", "x - (v - rest)")


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
        kernel: What runs the time steps of ``atan`` neurons on the CPU: ``spikingjelly`` step by step, ``fused`` in one compiled
            function, with the same bits; ``auto`` is ``fused`` where there is a C compiler. On a GPU it is always SpikingJelly.

    Raises:
        InputError: For an unknown surrogate or kernel, a number outside its range, or ``fused`` without a C compiler.

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
    kernel: Literal["auto", "spikingjelly", "fused"] = "auto"

    def __post_init__(self) -> None:
        require_number("threshold", self.threshold, above=0)
        if self.reset is not None:
            require_number("reset", self.reset)
        require_choice("surrogate", self.surrogate, SURROGATES)
        require_number("alpha", self.alpha, above=0)
        require_choice("kernel", self.kernel, KERNELS)
        if self.kernel == "fused" and compiled(INTEGRATE) is None:
            raise InputError("kernel='fused' needs a C compiler (cc, or $CC): install one, or give 'auto'")

    def build(self) -> neuron.IFNode:
        """Return a new neuron layer without state."""
        kind = neuron.IFNode if self.kernel == "spikingjelly" else FusedIFNode
        return kind(
            v_threshold=float(self.threshold),
            v_reset=None if self.reset is None else float(self.reset),
            surrogate_function=SURROGATES[self.surrogate](alpha=float(self.alpha)),
            detach_reset=self.detach_reset,
        )


class FusedNode(neuron.BaseNode):  # type: ignore[misc]  # SpikingJelly ships no types
    """A SpikingJelly neuron whose time steps run in one compiled function, where that gives the same bits.

    That is in float32 on the CPU and while its surrogate is an ``ATan``; elsewhere SpikingJelly's own forward runs. Nothing else
    changes: attributes are read at each call, and states and state-dict names are the neuron's.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Compiled here, where that was not done before: the first forward pass would wait for it.
        compiled(self._charge())

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Return the spikes [T,...] of x [T,...]."""
        library = compiled(self._charge()) if self._is_plain(x_seq) else None
        if library is None:
            slow: Tensor = super().multi_step_forward(x_seq)
            return slow
        (v,) = self.materialize_states((x_seq,), (self._memories["v"],), "m")
        threshold, reset, detach, alpha = self.v_threshold, self.v_reset, self.detach_reset, float(self.surrogate_function.alpha)

        def reference(x: Tensor, v: Tensor, leak: Tensor) -> tuple[Tensor, Tensor]:
            return self._generic(x, v, leak, threshold, reset, surrogate.ATan(alpha), detach)[:2]

        spikes, self._memories["v"] = fused_steps(x_seq, v, self._leak(), Dynamics(library, threshold, reset, detach, alpha, reference))
        return spikes

    def _is_plain(self, x: Tensor) -> bool:
        # First, and alone: on a GPU a pass waits for Python.
        if x.device.type != "cpu":
            return False
        function = self.surrogate_function
        # The exact type: a backward rule, or a user, may have put another surrogate here.
        plain = type(function) is surrogate.ATan and function.spiking and isinstance(function.alpha, (int, float))
        watched = self.store_v_seq or self._neuron_precision is not None or torch.compiler.is_compiling()
        # Fake tensors and the like have no numbers to look at.
        real = type(x) is Tensor and x.dtype == torch.float32 and x.numel() > 0
        return plain and real and not watched

    def _charge(self) -> Charge:
        return INTEGRATE

    def _leak(self) -> Tensor:
        return torch.zeros(())

    def _generic(self, x: Tensor, v: Tensor, leak: Tensor, *settings: object) -> tuple[Tensor, Tensor, object]:
        return functional.if_multi_step(x, v, *settings)


class FusedIFNode(FusedNode, neuron.IFNode):  # type: ignore[misc]  # both define the forward pass; the fused one comes first
    """``IFNode``: ``u[t] = v[t-1] + x[t]``."""


class FusedLIFNode(FusedNode, neuron.LIFNode):  # type: ignore[misc]  # both define the forward pass; the fused one comes first
    """``LIFNode``: ``u[t] = v[t-1] - (v[t-1] - rest) / tau + x[t]``, or x[t] / tau where the input decays too."""

    def _charge(self) -> Charge:
        return LEAK_WITH_INPUT if self.decay_input else LEAK

    def _leak(self) -> Tensor:
        return torch.tensor(self.tau)

    def _generic(self, x: Tensor, v: Tensor, leak: Tensor, *settings: object) -> tuple[Tensor, Tensor, object]:
        return functional.lif_multi_step(x, v, self.tau, self.decay_input, *settings)


class FusedParametricLIFNode(FusedNode, neuron.ParametricLIFNode):  # type: ignore[misc]  # both define the forward pass; the fused one comes first
    """``ParametricLIFNode``: a ``LIFNode`` that learns ``1/tau = sigmoid(w)``."""

    def _charge(self) -> Charge:
        return LEARNT_LEAK_WITH_INPUT if self.decay_input else LEARNT_LEAK

    def _leak(self) -> Tensor:
        return self.w.sigmoid()

    def _generic(self, x: Tensor, v: Tensor, leak: Tensor, *settings: object) -> tuple[Tensor, Tensor, object]:
        return functional.plif_multi_step(x, v, leak.logit(), self.decay_input, *settings)
