"""MIX's networks: the paper's table layer by layer, sides that are odd, and norms that know the present batch only."""

import pytest
import torch
from torch import nn

from disentkit.errors import UserError
from disentkit.nets import mix as nets


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


def sides(net, x) -> list[int]:
    """The side of each map that a convolution or a pooling of the network returns."""
    found = []
    for layer in net:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
            found.append(x.shape[-1])
    return found


def test_papers_table_at_60_pixels():
    shape, x = (3, 60, 60), torch.rand(2, 3, 60, 60)
    encoder, decoder = nets.encoder(shape, 512, "paper"), nets.decoder(shape, 512, "paper")
    discriminator, classifier = nets.discriminator(shape, "paper"), nets.classifier(shape, 8, "paper")
    assert sides(encoder, x) == [30, 15, 8, 4, 2]
    assert sides(decoder, torch.rand(2, 512)) == [4, 8, 15, 30, 60]
    assert sides(discriminator, x) == [30, 15, 8, 8]
    assert sides(classifier, torch.rand(2, 9, 60, 60)) == [27, 13, 13, 6, 6, 6, 6, 2]
    # Weights in millions, counted from the released code's layers.
    counted = [count(net) / 1e6 for net in (encoder, decoder, discriminator, classifier)]
    assert [round(c, 2) for c in counted] == [3.28, 8.03, 0.54, 23.37]
    assert not any(layer.bias is not None for layer in decoder if isinstance(layer, nn.ConvTranspose2d))


@pytest.mark.parametrize("table", nets.TABLES)
@pytest.mark.parametrize("size", [28, 32, 33, 60, 64])
def test_every_size_comes_back(table, size):
    shape, x = (1, size, size), torch.rand(2, 1, size, size)
    code = nets.encoder(shape, 24, table, 0.1)(x)
    picture = nets.decoder(shape, 24, table, 0.1)(code)
    assert code.shape == (2, 24) and picture.shape == x.shape and picture.abs().max() <= 1
    assert nets.discriminator(shape, table, 0.1)(x).shape == (2, 1)
    assert nets.classifier(shape, 8, table, 0.1)(torch.cat([x, x, x], 1)).shape == (2, 8)


@pytest.mark.parametrize("kernel, side", [(4, 60), (4, 15), (2, 8), (2, 7), (3, 60), (3, 15)])
def test_halving_is_tensorflows_same_padding_and_doubling_its_transpose(kernel, side):
    """<halve(x), y> = <x, double(y)> for shared weights: the transposed convolution is the convolution's adjoint."""
    halve = nets.Halve(2, 3, kernel, side, bias=False)
    double = nets.Double(3, 2, kernel, side, bias=False)
    double.weight = halve.weight
    x, y = torch.rand(1, 2, side, side), torch.rand(1, 3, -(-side // 2), -(-side // 2))
    torch.testing.assert_close((halve(x) * y).sum(), (x * double(y)).sum())


@pytest.mark.parametrize("table", nets.TABLES)
def test_judges_of_the_batch_keep_no_running_statistics(table):
    shape = (3, 32, 32)
    for net in (nets.discriminator(shape, table, 0.25), nets.classifier(shape, 4, table, 0.25)):
        assert not list(net.buffers()) and any(isinstance(layer, nn.BatchNorm2d) for layer in net)
        x = torch.rand(4, 9 if net[0].in_channels == 9 else 3, 32, 32)
        assert torch.equal(net.train()(x), net.eval()(x))
    for net in (nets.encoder(shape, 16, table, 0.25), nets.decoder(shape, 16, table, 0.25)):
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net)


def test_fresh_small_networks_keep_the_scale():
    """Codes and pictures of a fresh network are neither flat nor saturated, or the first steps would teach nothing."""
    x = 2 * torch.rand(32, 3, 32, 32) - 1
    code = nets.encoder((3, 32, 32), 64)(x)
    picture = nets.decoder((3, 32, 32), 64)(torch.randn(32, 64))
    assert 0.05 < code.std() < 5 and 0.05 < picture.std() < 0.95


@pytest.mark.parametrize("what, message", [
    (lambda: nets.encoder((3, 32, 32), 16, "papr"), "unknown nets 'papr'. Did you mean 'paper'"),
    (lambda: nets.encoder((3, 32, 30), 16), "square pictures of 16 to 128 pixels, not 32x30"),
    (lambda: nets.decoder((3, 8, 8), 16), "16 to 128 pixels, not 8x8"),
    (lambda: nets.discriminator((3, 32, 32), wide=0), "wide must be a finite number above 0, not 0"),
    (lambda: nets.classifier((3, 21, 21), 8, "paper"), "22 pixels or more, not 21"),
])  # fmt: skip
def test_what_no_table_reads_is_refused(what, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        what()
