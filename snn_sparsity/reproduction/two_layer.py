"""The two-layer spiking network of the paper's section 5: its rate, and its gradients as printed (arXiv 2509.23762).

The setting is H hidden neurons and one output neuron: spikes ``s`` [T,d], weights ``w1`` [H,d] and ``w2`` [H]. The paper prints
a single hidden neuron (``w1`` in R^d; ``w2`` is called d-dimensional too but multiplies one spike, so it is a scalar); H = 1 is
that network letter by letter. H > 1 only sums its printed products over the hidden neurons, and lets one of them be cut off.

The printed gradients are those of ``instantaneous`` neurons. They differ from a real hard-reset integrate-and-fire network in
two ways: the membrane potential carries nothing from one time step to the next, and the surrogate is taken at the neuron's
input instead of its distance from the threshold (which SpikingJelly takes, and so does every network of this package).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Neuron = Callable[[Tensor], Tensor]
"""From input currents [T,...] to spikes of the same shape."""


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, potential: Tensor, threshold: float, centre: float) -> Tensor:
        ctx.save_for_backward(potential)
        ctx.centre = centre
        return (potential >= threshold).to(potential.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (potential,) = ctx.saved_tensors
        return gradients[0] * surrogate_slope(potential - ctx.centre), None, None


def surrogate_slope(x: Tensor) -> Tensor:
    """Return the arctangent surrogate ``1 / (1 + (pi x)^2)``, which is never 0 (equation 8; equation 4 at alpha = 2).

    Args:
        x: Any shape, in units of membrane potential.

    Returns:
        The shape of x, in (0,1].

    Example:
        >>> surrogate_slope(torch.tensor([0.0, 1 / math.pi])).tolist()
        [1.0, 0.5]
    """
    return 1 / (1 + (math.pi * x) ** 2)


def instantaneous(currents: Tensor, threshold: float = 1.0, centre: float = 0.0) -> Tensor:
    """Fire where the current alone reaches the threshold, ``Theta(z[t]) = 1[z[t] >= V_th]``: equation 8 as printed.

    Args:
        currents: z [T,...], in units of membrane potential.
        threshold: V_th.
        centre: Where the surrogate is largest. Printed is 0, so that a silent neuron (z = 0) passes the most gradient and one
            at V_th = 1 a tenth of it; V_th reverses this.

    Returns:
        Spikes of the shape of currents, 0 or 1.

    Example:
        >>> instantaneous(torch.tensor([0.6, 0.6, 1.0])).tolist()
        [0.0, 0.0, 1.0]
    """
    spikes: Tensor = _Step.apply(currents, threshold, centre)
    return spikes


def integrate_and_fire(currents: Tensor, threshold: float = 1.0, centre: float = 0.0) -> Tensor:
    """Fire as the hard-reset integrate-and-fire neuron does, which equation 8 names but does not write out.

    ``u[t] = u[t-1] (1 - y[t-1]) + z[t]``, ``y[t] = 1[u[t] >= V_th]``; the reset is left out of the backward pass. With
    ``centre = threshold`` this is SpikingJelly's ``IFNode``. Source: the text above equation 8.

    Args:
        currents: z [T,...], in units of membrane potential.
        threshold: V_th.
        centre: Where the surrogate is largest.

    Returns:
        Spikes of the shape of currents, 0 or 1.

    Example:
        >>> integrate_and_fire(torch.tensor([0.6, 0.6, 0.6])).tolist()
        [0.0, 1.0, 0.0]
    """
    potential, spikes = torch.zeros_like(currents[0]), [torch.zeros_like(currents[0])]
    for current in currents:
        potential = potential * (1 - spikes[-1].detach()) + current
        spikes.append(instantaneous(potential, threshold, centre))
    return torch.stack(spikes[1:])


def firing_rate(s: Tensor, w1: Tensor, w2: Tensor, neuron: Neuron = instantaneous) -> Tensor:
    """Return the output neuron's mean over time, ``p_w(s) = E_T[Theta(w2 . Theta(w1 s[t]))]`` (equation 7).

    Args:
        s: [T,d] spikes.
        w1: [H,d].
        w2: [H].
        neuron: Theta of both layers.

    Returns:
        Scalar in [0,1], spikes per time step.

    Example:
        >>> firing_rate(torch.tensor([[1.0], [0.0]]), w1=torch.tensor([[2.0]]), w2=torch.tensor([1.5])).item()
        0.5
    """
    return neuron(neuron(s @ w1.T) @ w2).mean()


def output_chain(s: Tensor, w1: Tensor, w2: Tensor, threshold: float = 1.0) -> Tensor:
    """Return the chain that every gradient shares, ``dp/dy2 dy2/dz2 = (1/T) / (1 + (pi w2 . Theta(w1 s[t]))^2)``.

    Source: equation 9 and the unnumbered one before it.

    Args:
        s: [T,d] spikes.
        w1: [H,d].
        w2: [H].
        threshold: V_th.

    Returns:
        [T].

    Example:
        >>> output_chain(torch.tensor([[1.0], [0.0]]), w1=torch.tensor([[0.5]]), w2=torch.tensor([1.5])).tolist()
        [0.5, 0.5]
    """
    return surrogate_slope(instantaneous(s @ w1.T, threshold) @ w2) / len(s)


def shared_chain(s: Tensor, w1: Tensor, w2: Tensor, threshold: float = 1.0) -> Tensor:
    """Return what the input's and w1's gradients share, ``dp/dy2 dy2/dz2 dz2/dy1 dy1/dz1`` (red in the paper's figure 4).

    ``output_chain[t] w2_h / (1 + (pi w1_h . s[t])^2)``: as the surrogate is never 0, it is 0 exactly where ``w2_h`` is.
    Source: equation 9. Arguments here and below are those of ``output_chain``.

    Returns:
        [T,H].

    Example:
        >>> shared_chain(torch.tensor([[0.0]]), w1=torch.tensor([[0.5], [2.0]]), w2=torch.tensor([0.0, 3.0])).tolist()
        [[0.0, 3.0]]
    """
    return output_chain(s, w1, w2, threshold)[:, None] * w2 * surrogate_slope(s @ w1.T)


def printed_input_gradient(s: Tensor, w1: Tensor, w2: Tensor, threshold: float = 1.0) -> Tensor:
    """Return ``grad_{s[t]} p_w(s) = (1/T) w2 / (1 + (pi w2 Theta(w1 . s[t]))^2)  w1 / (1 + (pi w1 . s[t])^2)``.

    Equals autograd for ``instantaneous`` neurons. With ``integrate_and_fire`` a spike also sends gradient to earlier inputs.
    Source: the unnumbered equation between 8 and 9.

    Returns:
        [T,d], rate per unit of input.

    Example:
        >>> printed_input_gradient(torch.tensor([[0.0]]), w1=torch.tensor([[2.0]]), w2=torch.tensor([3.0])).tolist()
        [[6.0]]
    """
    return shared_chain(s, w1, w2, threshold) @ w1


def printed_w1_gradient(s: Tensor, w1: Tensor, w2: Tensor, threshold: float = 1.0) -> Tensor:
    """Return ``grad_{w1} p_w(s) = E_T[w2 / (1 + (pi w2 Theta(w1 . s[t]))^2)  s[t] / (1 + (pi w1 . s[t])^2)]``.

    Equals autograd for ``instantaneous`` neurons only, as ``printed_input_gradient`` does. Source: equation 9, second line.

    Returns:
        [H,d], rate per unit of weight.

    Example:
        >>> printed_w1_gradient(torch.tensor([[1.0]]), w1=torch.tensor([[0.0]]), w2=torch.tensor([3.0])).tolist()
        [[3.0]]
    """
    return shared_chain(s, w1, w2, threshold).T @ s


def printed_w2_gradient(s: Tensor, w1: Tensor, w2: Tensor, threshold: float = 1.0) -> Tensor:
    """Return ``grad_{w2} p_w(s) = E_T[Theta(w1 . s[t]) / (1 + (pi w2 Theta(w1 . s[t]))^2)]``.

    Equals autograd for ``instantaneous`` neurons only, as ``printed_input_gradient`` does. Source: equation 9, first line.

    Returns:
        [H], rate per unit of weight.

    Example:
        >>> printed_w2_gradient(torch.tensor([[1.0], [0.0]]), w1=torch.tensor([[2.0]]), w2=torch.tensor([0.0])).tolist()
        [0.5]
    """
    return output_chain(s, w1, w2, threshold) @ instantaneous(s @ w1.T, threshold)
