"""ELEGANT's networks: both tables, the normalisation, skips and scales."""

import pytest
import torch

from disentkit.errors import UserError
from disentkit.nets import elegant as nets


def test_normalisation_makes_vectors_of_channels_of_length_one():
    layer, x = nets.Normalise(), torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(layer(x).square().sum(1), torch.ones(2, 3, 3))
    torch.testing.assert_close(layer(3 * x), layer(x))
    layer.gain.data.fill_(2.0)
    layer.offset.data.fill_(0.5)
    length = x[1, :, 2, 0].square().sum().sqrt()
    torch.testing.assert_close(layer(x)[1, 3, 2, 0], 2 * x[1, 3, 2, 0] / length + 0.5)
    assert sum(p.numel() for p in layer.parameters()) == 2


@pytest.mark.parametrize("table, size, code", [
    ("small", 16, (128, 2)), ("small", 32, (128, 4)), ("small", 64, (128, 4)), ("paper", 32, (512, 1)),
    ("paper", 64, (512, 2)),
])  # fmt: skip
def test_tables(table, size, code):
    shape, x = (3, size, size), 2 * torch.rand(2, 3, size, size) - 1
    enc, dec = nets.Encoder(shape, table), nets.Decoder(shape, table)
    z, maps = enc(x)
    assert z.shape == (2, code[0], code[1], code[1])
    assert [m.shape[-1] for m in maps] == [size // 2 ** (i + 1) for i in range(len(maps))]
    residual = dec(z, z, maps)
    assert residual.shape == x.shape and residual.abs().max() < 2
    for halve in (False, True):
        D = nets.Discriminator(shape, 5, table, halve=halve)
        assert D(x, torch.rand(2, 5)).shape == (2, 1)


def test_papers_encoder_and_decoder_have_their_widths():
    enc, dec = nets.Encoder((3, 64, 64), "paper"), nets.Decoder((3, 64, 64), "paper")
    assert [layer[0].out_channels for layer in enc.layers] == [64, 128, 256, 512, 512]
    assert [layer[0].in_channels for layer in dec.layers] == [1024, 512, 256, 128] and dec.last.in_channels == 64


def test_skips_are_added_to_maps_of_their_side():
    """With nothing from the code, the last map is the encoder's first one, and the residual follows it alone."""
    enc, dec = nets.Encoder((1, 32, 32)), nets.Decoder((1, 32, 32))
    for layer in dec.layers:
        layer[1].gain.data.zero_()  # what comes from below is 0
    z, maps = enc(torch.rand(2, 1, 32, 32))
    torch.testing.assert_close(dec(z, z, maps), 2 * dec.last(maps[0]).tanh())
    maps[1] = torch.zeros_like(maps[1])  # it would go through a layer that gives 0
    torch.testing.assert_close(dec(0 * z, z, maps), 2 * dec.last(maps[0]).tanh())


def test_second_scale_sees_pictures_of_half_the_side():
    D, x, labels = nets.Discriminator((1, 32, 32), 3, halve=True), torch.rand(2, 1, 32, 32), torch.rand(2, 3)
    waves = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)  # gone where 2x2 pixels are averaged
    torch.testing.assert_close(D(x, labels), D(x + 0.3 * waves, labels))
    assert not torch.allclose(D(x, labels), D(x, labels.flip(1)))
    whole = nets.Discriminator((1, 32, 32), 3)
    assert not torch.allclose(whole(x, labels), whole(x + 0.3 * waves, labels))


@pytest.mark.parametrize("what, message", [
    (lambda: nets.widths((3, 32, 32), "papr"), "unknown nets 'papr'. Did you mean 'paper'"),
    (lambda: nets.widths((3, 48, 48), "paper"), "square pictures whose side 32 divides, not 48x48"),
    (lambda: nets.Encoder((3, 32, 64)), "whose side 8 divides, not 32x64"),
    (lambda: nets.Decoder((3, 32, 32), wide=-1.0), "wide must be a finite number above 0, not -1"),
    (lambda: nets.Discriminator((3, 32, 32), 2, wide=100), "wide can be 16 at most, not 100"),
])  # fmt: skip
def test_what_no_table_reads_is_refused(what, message):
    with pytest.raises(UserError, match=message):
        what()
