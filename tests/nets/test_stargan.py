"""StarGAN's networks: both tables, and label maps that are not made against label maps that are."""

import pytest
import torch
import torch.nn.functional as F

from disentkit.errors import UserError
from disentkit.nets import stargan as nets


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("kernel, stride, padding, side", [
    (7, 1, 3, 32), (7, 1, 3, 8), (7, 1, 3, 5), (3, 2, 1, 16), (3, 2, 1, 17), (3, 2, 1, 2), (4, 2, 1, 16), (3, 1, 1, 1),
])  # fmt: skip
def test_labelled_convolution_is_that_of_constant_maps(kernel, stride, padding, side):
    """Values and gradients are those of pictures with one map per label laid beside them."""
    conv = nets.LabelledConv(3, 5, 4, kernel, stride, padding, bias=True).double()
    x, labels = torch.rand(2, 3, side, side).double(), torch.rand(2, 5).double()
    maps = labels[:, :, None, None].expand(-1, -1, side, side)
    wanted = F.conv2d(torch.cat([x, maps], 1), conv.weight, conv.bias, stride, padding)
    found = conv(x, labels)
    torch.testing.assert_close(found, wanted)
    weights = torch.rand_like(wanted)
    grads = [torch.autograd.grad((y * weights).sum(), [conv.weight, conv.bias]) for y in (found, wanted)]
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs)


def test_papers_table():
    shape, x = (3, 64, 64), torch.rand(2, 3, 64, 64)
    G, trunk = nets.Generator(shape, 5, "paper"), nets.trunk(shape, "paper")
    assert G(2 * x - 1, torch.rand(2, 5)).shape == x.shape
    assert nets.last_map(shape, "paper") == (2048, 1) and nets.last_map((3, 128, 128), "paper") == (2048, 2)
    assert round(count(G) / 1e6, 2) == 8.43 and round(count(trunk) / 1e6, 1) == 44.7
    assert sum(isinstance(layer, nets.Residual) for layer in G.body) == 6
    assert nets.last_map((3, 32, 32), "paper") == (1024, 1)


@pytest.mark.parametrize("size, channels", [(16, 128), (32, 256), (64, 512)])
def test_small_table(size, channels):
    shape, x = (3, size, size), 2 * torch.rand(2, 3, size, size) - 1
    picture = nets.Generator(shape, 5, wide=0.25)(x, torch.rand(2, 5))
    assert picture.shape == x.shape and picture.abs().max() <= 1 and picture.std() > 0.05
    assert nets.last_map(shape) == (channels, 2)
    last = nets.trunk(shape, wide=0.25)(x)
    assert last.shape == (2, channels // 4, 2, 2)
    assert nets.head_src(shape, wide=0.25)(last).shape == (2, 1, 2, 2)
    assert nets.head_cls(shape, 5, wide=0.25)(last).shape == (2, 5)


def test_labels_get_past_instance_norm():
    """At the borders: with reflected ones nothing would be left of a constant map."""
    G, x = nets.Generator((3, 32, 32), 4, wide=0.25), torch.rand(1, 3, 32, 32)
    one, two = (G(x, label[None]) for label in torch.eye(4)[:2])
    assert (one - two).abs().mean() > 1e-3
    norm = G.body[0]
    inner = torch.rand(1, norm.num_features, 1, 1).expand(-1, -1, 32, 32)
    torch.testing.assert_close(norm(G.stem(x, torch.zeros(1, 4)) + inner), norm(G.stem(x, torch.zeros(1, 4))),
                               rtol=1e-3, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("what, message", [
    (lambda: nets.trunk((3, 32, 32), "papr"), "unknown nets 'papr'. Did you mean 'paper'"),
    (lambda: nets.trunk((3, 30, 30)), "square pictures of 16, 20 ... 128 pixels, not 30x30"),
    (lambda: nets.Generator((3, 32, 64), 2), "not 32x64"),
    (lambda: nets.Generator((3, 32, 32), 2, wide=0), "wide must be a finite number above 0, not 0"),
    (lambda: nets.Generator((3, 32, 32), 2, wide=100), "wide can be 16 at most, not 100"),
])  # fmt: skip
def test_what_no_table_reads_is_refused(what, message):
    with pytest.raises(UserError, match=message):
        what()
