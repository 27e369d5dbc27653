"""Where time steps and images are in what an operation sees."""

from spikingjelly.activation_based import layer
from torch import Tensor, nn

from snn_sparsity.measure.operations import INPUT, Operation, takes_all_steps
from snn_sparsity.validation import InputError


class Layout:
    """Bring what an operation sees to [T,N,...], by the number of time steps and images that go through the network.

    Multi-step modules of SpikingJelly see [T,N,...]; what lies in a ``SeqToANNContainer`` sees [T*N,...], step after step;
    any other module sees one step, [N,...], or a linear layer the whole sequence. What fits none of these is refused by name: a guess
    would put the numbers of one image down to another.

    Args:
        network: The network.
        images: N.
        steps: T; None for a network whose input is images [N,...], which may make time steps of its own.

    Example:
        >>> import torch
        >>> network = layer.SeqToANNContainer(nn.Conv2d(1, 1, 1))
        >>> convolution = Operation("conv", "0", 1, network[0])
        >>> Layout(network, images=2, steps=3).time_first(convolution, torch.zeros(6, 1, 4, 4)).shape
        torch.Size([3, 2, 1, 4, 4])
    """

    def __init__(self, network: nn.Module, images: int, steps: int | None) -> None:
        self.images, self.steps = images, steps
        containers = [module for module in network.modules() if isinstance(module, layer.SeqToANNContainer)]
        self._flattened = {id(inner) for container in containers for inner in container.modules() if inner is not container}

    def time_first(self, operation: Operation, x: Tensor) -> Tensor:
        """Return a view [T,N,...] of an operation's input, or of the gradient there; T is 1 where there is no time.

        Raises:
            InputError: If it is neither [T,N,...] nor [N,...], nor [T*N,...] in a ``SeqToANNContainer``.
        """
        multi_step = takes_all_steps(operation.module)
        sequence = x.ndim > 2 and x.shape[1] == self.images and self.steps in (None, len(x))
        if sequence and (multi_step or (self.steps is not None and operation.kind in (INPUT, "linear"))):
            return x
        if id(operation.module) in self._flattened and self.images and len(x) % self.images == 0:
            steps = len(x) // self.images
            if self.steps in (None, steps):
                return x.unflatten(0, (steps, self.images))
        if len(x) == self.images and not multi_step:
            return x.unsqueeze(0)
        raise InputError(
            f"operation {operation.path!r} sees {list(x.shape)} in a pass of {self.images} images"
            f"{f' and {self.steps} time steps' if self.steps else ''}: which rows belong to which image is not known. Use SpikingJelly's "
            "multi-step mode, or put it into a SeqToANNContainer"
        )
