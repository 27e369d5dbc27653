import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_sparsity.measure.windows import Window, positions_read, selected, spikes_per_window, tie_shared_gradient
from snn_sparsity.validation import InputError

WINDOW = Window(3, 2, 1)


def single(values):
    """One 3x3 map under one 3x3 window."""
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 3)


ONE_WINDOW = Window(3, 3, 0)


@pytest.mark.parametrize(
    ("spikes", "count", "wins", "shares"),
    [
        # No spike: PyTorch takes the first position, sharing takes all nine.
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], 0, [1, 0, 0, 0, 0, 0, 0, 0, 0], [1] * 9),
        # One spike: both agree.
        ([0, 0, 0, 0, 1, 0, 0, 0, 0], 1, [0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 9, 0, 0, 0, 0]),
        # Three spikes: the first wins, or each gets a third.
        ([0, 1, 0, 1, 0, 0, 0, 0, 1], 3, [0, 1, 0, 0, 0, 0, 0, 0, 0], [0, 3, 0, 3, 0, 0, 0, 0, 3]),
    ],
)
def test_one_window_by_hand(spikes, count, wins, shares):
    x = single(spikes)
    assert spikes_per_window(x, ONE_WINDOW).item() == count
    assert selected(x, ONE_WINDOW).flatten().int().tolist() == wins
    shared = tie_shared_gradient(x, torch.full((1, 1, 1), 9.0), ONE_WINDOW)
    torch.testing.assert_close(shared.flatten(), torch.tensor(shares, dtype=torch.float32))


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2, 3, 4, 9, 8, generator=generator) < 0.2).float()
    gradient = torch.randn(2, 3, 4, 5, 4, generator=generator)
    return x, gradient


def test_selected_is_where_autograd_sends_gradients(maps):
    x, gradient = maps
    leaf = x.clone().requires_grad_()
    F.max_pool2d(leaf.flatten(0, 1), *WINDOW[:3]).backward(gradient.abs().flatten(0, 1) + 1)
    assert torch.equal(selected(x, WINDOW), leaf.grad != 0)


def test_ties_apart_the_two_derivatives_agree(maps):
    _, gradient = maps
    x = torch.rand(2, 3, 4, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (theirs,) = torch.autograd.grad(F.max_pool2d(x.flatten(0, 1), *WINDOW[:3]), x, gradient.flatten(0, 1))
    torch.testing.assert_close(tie_shared_gradient(x.detach(), gradient, WINDOW), theirs)


def test_sharing_against_window_by_window(maps):
    x, gradient = maps
    expected = torch.zeros_like(x)
    height, width = x.shape[-2:]
    for row in range(5):
        for column in range(4):
            rows = [r for r in range(2 * row - 1, 2 * row + 2) if 0 <= r < height]
            columns = [c for c in range(2 * column - 1, 2 * column + 2) if 0 <= c < width]
            window = x[..., rows, :][..., columns]
            winners = (window == window.amax((-2, -1), keepdim=True)).float()
            share = winners / winners.sum((-2, -1), keepdim=True) * gradient[..., row, column][..., None, None]
            for i, r in enumerate(rows):
                for j, c in enumerate(columns):
                    expected[..., r, c] += share[..., i, j]
    torch.testing.assert_close(tie_shared_gradient(x, gradient, WINDOW), expected)


def test_nothing_is_lost_by_sharing(maps):
    x, gradient = maps
    torch.testing.assert_close(tie_shared_gradient(x, gradient, WINDOW).sum((-2, -1)), gradient.sum((-2, -1)))


@pytest.mark.parametrize("size", [(9, 8), (8, 9), (5, 5), (6, 6), (7, 3)])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 5, 1), (2, 3, 1)])
def test_windows_that_begin_inside_the_map_and_end_behind_it(window, size):
    """Against autograd: which outputs there are, whom each reads, and who wins."""
    kernel, stride, padding = window
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)
    average = nn.AvgPool2d(kernel, stride, padding, ceil_mode=True, divisor_override=1)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    outputs, window = pool(x), Window.of(pool)
    gradient = torch.rand(outputs.shape, generator=torch.Generator().manual_seed(1)) + 1
    (theirs,) = torch.autograd.grad(outputs, x, gradient)
    assert torch.equal(selected(x, window), theirs != 0)
    torch.testing.assert_close(tie_shared_gradient(x, gradient, window), theirs)
    counts = average(x)
    (read,) = torch.autograd.grad(counts.sum(), x)
    for module in (pool, average):
        assert torch.equal(positions_read(module, size).expand_as(x), read != 0)
    spikes = (x > 0.5).float()
    torch.testing.assert_close(spikes_per_window(spikes, window), average(spikes))


def test_the_last_window_of_an_odd_map_by_hand():
    """Three columns in windows of two: the third column makes windows of its own, of which the last is a corner."""
    x, window = single([0, 1, 1, 0, 0, 1, 1, 1, 0]), Window(2, 2, 0, ceil_mode=True)
    assert spikes_per_window(x, window).flatten().tolist() == [1, 2, 2, 0]
    assert selected(x, window).flatten().int().tolist() == [0, 1, 1, 0, 0, 0, 1, 0, 1]
    shared = tie_shared_gradient(x, torch.full((1, 2, 2), 2.0), window)
    assert shared.flatten().tolist() == [0, 2, 1, 0, 0, 1, 1, 1, 2]
    assert positions_read(nn.MaxPool2d(2, ceil_mode=True), (3, 3)).all()
    assert positions_read(nn.MaxPool2d(2), (3, 3)).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_windows_of_modules():
    assert Window.of(nn.MaxPool2d(3, 2, 1)) == Window(3, 2, 1, ceil_mode=False)
    assert Window.of(nn.MaxPool2d((2, 2), ceil_mode=True)) == Window(2, 2, 0, ceil_mode=True)
    for module in (nn.MaxPool2d((2, 3)), nn.MaxPool2d(2, dilation=2), nn.MaxPool1d(2), nn.MaxPool3d(2)):
        with pytest.raises(InputError, match="is not square"):
            Window.of(module)
