"""What every spike code has in common: 8-bit grey levels in, a spike train out, no state between calls."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from snn_sparsity.validation import InputError, require_number

LEVELS = 256
MOST_STEPS = 10_000
"""Beyond it a code book alone takes tens of megabytes, and a batch gigabytes."""


def require_steps(num_steps: int) -> None:
    """Raise InputError unless T is a whole number from 1 to 10,000."""
    require_number("num_steps", num_steps, at_least=1, at_most=MOST_STEPS, whole=True)


def grey_levels(images: Tensor) -> Tensor:
    """Return the 8-bit grey level of each pixel.

    Args:
        images: [N,C,H,W]; uint8, or float in [0,1], which is put on the 8-bit lattice as ``round(255 x)``.

    Returns:
        [N,C,H,W] uint8.

    Raises:
        InputError: For another shape or type, or a float outside [0,1] or not finite.

    Example:
        >>> grey_levels(torch.tensor([[[[0.0, 0.5, 1.0]]]])).flatten().tolist()
        [0, 128, 255]
    """
    if images.ndim != 4:
        raise InputError(f"images of shape {list(images.shape)} are not allowed: give [N,C,H,W]")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"images of type {images.dtype} are not allowed: give uint8, or float in [0,1]")
    # Written so that NaN fails.
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        require_finite(images, "images")
        low, high = images.min().item(), images.max().item()
        raise InputError(f"images with values from {low:.9g} to {high:.9g} are not allowed: give uint8, or float in [0,1]")
    return (images.detach() * 255).round().to(torch.uint8)


def require_finite(images: Tensor, what: str, first: int = 0) -> None:
    """Raise InputError for an image with a NaN or an infinite number, naming its place.

    Args:
        images: [N,...].
        what: What the message calls them.
        first: Place of the first one.

    Example:
        >>> require_finite(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]), "images", first=100)
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: images: number 101 (from 0) holds NaN
    """
    finite = images.isfinite().flatten(1).all(1)
    if not finite.all():
        place = int((~finite).nonzero()[0])
        held = "NaN" if images[place].isnan().any() else "an infinite number"
        raise InputError(f"{what}: number {first + place} (from 0) holds {held}")


class Encoder(nn.Module, ABC):
    """A spike code: ``encoder(images[N,C,H,W]) -> spikes[T,N,C,H,W]``, a pure function of its arguments.

    Spikes are float32; codes with a gradient keep the precision of the images.

    Args:
        num_steps: T, the number of time steps, 1 to 10,000.
    """

    stochastic = False
    """True for codes that draw random numbers; they take a generator and have no code book."""
    shows_values = False
    """True for the code whose spikes are the pixel's value itself: a network behind it can be shown any value."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        require_steps(num_steps)
        self.num_steps = num_steps

    @abstractmethod
    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode images.

        Args:
            images: [N,C,H,W]; uint8, or float in [0,1] (see :func:`grey_levels`).
            generator: Source of randomness for stochastic codes; deterministic ones ignore it.

        Returns:
            [T,N,C,H,W] float32.

        Raises:
            InputError: For images of another shape, type or range.
        """

    def require_generator(self, generator: torch.Generator | None) -> torch.Generator:
        """Return the generator.

        Raises:
            InputError: If there is none: the global random state would make results depend on what ran before.
        """
        if generator is None:
            raise InputError(f"{type(self).__name__} draws random numbers: give a generator")
        return generator

    def refuse_gradient(self, images: Tensor) -> None:
        """Raise where somebody asks for a gradient that this code does not have."""
        if torch.is_grad_enabled() and images.requires_grad:
            raise InputError(
                f"{type(self).__name__} has no gradient with respect to the image: attack the spikes (space='spikes'), "
                "or the image with CodeBookAscent"
            )


class PixelCode(Encoder):
    """A deterministic code that works pixel by pixel: a look-up in its code book.

    Args:
        code_book: [256,T], the code of each grey level.
    """

    code_book: Tensor

    def __init__(self, code_book: Tensor) -> None:
        super().__init__(num_steps=code_book.shape[1])
        self.register_buffer("code_book", code_book.float(), persistent=False)

    @property
    def mean_code(self) -> Tensor:
        """[256,T], what each grey level shows on average: for a code without randomness, its code."""
        return self.code_book

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Look the code of each pixel up; see :meth:`Encoder.forward`."""
        self.refuse_gradient(images)
        table = self.code_book.to(images.device).T.contiguous()
        levels = grey_levels(images).long().flatten()
        # Several times as fast as indexing.
        return table.gather(1, levels.expand(len(table), -1)).view(len(table), *images.shape)


def all_levels() -> Tensor:
    """Return the 256 grey levels as a column, [256,1] int64: the rows of a code book."""
    return torch.arange(LEVELS).unsqueeze(1)
