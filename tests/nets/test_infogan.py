"""The networks of both GANs: as many weights as their tables say, every size, and a critic without any norm."""

import pytest
import torch
from methods.family import rng

from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.nets.infogan import generator, head_D, head_Q, trunk


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


def fc(a: int, b: int) -> int:
    return a * b + b


def test_networks_have_the_tables_numbers_of_weights():
    """Counted by hand from the tables: weights and biases, two numbers a channel for each batch norm."""
    mnist, sprites = (1, 28, 28), (1, 64, 64)
    with seeded(0):
        G, body, D, Q = generator(mnist, 74), trunk(mnist), head_D(mnist), head_Q(mnist, 12)
        G_, body_, Q_ = generator(sprites, 10, "dsprites"), trunk(sprites, "dsprites"), head_Q(sprites, 5, "dsprites")
        critic = trunk(sprites, "dsprites", norm=False)
    ups = (128 * 64 * 16 + 64) + 2 * 64 + (64 * 16 + 1)
    assert count(G) == fc(74, 1024) + 2 * 1024 + fc(1024, 6272) + 2 * 6272 + ups
    assert count(body) == (16 * 64 + 64) + (64 * 128 * 16 + 128) + 2 * 128 + fc(6272, 1024) + 2 * 1024
    assert count(D) == fc(1024, 1) and count(Q) == fc(1024, 128) + 2 * 128 + fc(128, 12)
    convs = (16 * 32 + 32) + (32 * 32 * 16 + 32) + (32 * 64 * 16 + 64) + (64 * 64 * 16 + 64)
    assert count(body_) == count(critic) == convs + fc(1024, 128) and count(Q_) == fc(128, 128) + fc(128, 5)
    ups = (64 * 64 * 16 + 64) + (64 * 32 * 16 + 32) + (32 * 32 * 16 + 32) + 2 * (64 + 32 + 32) + (32 * 16 + 1)
    assert count(G_) == fc(10, 128) + 2 * 128 + fc(128, 1024) + 2 * 1024 + ups


@pytest.mark.parametrize(
    "table, size", [("mnist", 28), ("mnist", 32), ("mnist", 16)] + [("dsprites", s) for s in (8, 16, 32, 64)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_fit_every_size(table, size, channels):
    shape = (channels, size, size)
    with seeded(0):
        G, body = generator(shape, 5, table, 0.25), trunk(shape, table, 0.25)
        D, Q = head_D(shape, table, 0.25), head_Q(shape, 4, table, 0.25)
    x = G(torch.randn(3, 5, generator=rng()))
    assert x.shape == (3, *shape) and isinstance(G[-1], torch.nn.ConvTranspose2d)  # logits
    features = body(x)
    assert D(features).shape == (3, 1) and Q(features).shape == (3, 4)


def test_wide_multiplies_every_inner_width():
    with seeded(0):
        G, body = generator((1, 16, 16), 74, wide=0.5), trunk((1, 64, 64), "dsprites", 2)
    assert [m.out_features for m in G if isinstance(m, torch.nn.Linear)] == [512, 4 * 4 * 64]
    assert [m.out_channels for m in G if isinstance(m, torch.nn.ConvTranspose2d)] == [32, 1]
    assert [m.out_channels for m in body if isinstance(m, torch.nn.Conv2d)] == [64, 64, 128, 128]
    assert body[-2].out_features == 256


def test_the_critic_has_no_norm_of_any_kind():
    for table in ("mnist", "dsprites"):
        for net in (trunk((1, 32, 32), table, norm=False), head_D((1, 32, 32), table, norm=False)):
            assert not any("Norm" in type(m).__name__ or hasattr(m, "parametrizations") for m in net.modules())
    assert any("BatchNorm" in type(m).__name__ for m in trunk((1, 32, 32), "mnist").modules())
    spectral = [m for m in trunk((1, 32, 32), "dsprites").modules() if hasattr(m, "parametrizations")]
    assert len(spectral) == 4 and hasattr(head_D((1, 32, 32), "dsprites"), "parametrizations")


def test_sizes_and_tables_that_cannot_be():
    with pytest.raises(ValueError, match="nets 'dsprites' read square pictures of 8, 16, 32 or 64 pixels, not 28x28"):
        generator((1, 28, 28), 4, "dsprites")
    with pytest.raises(ValueError, match="nets 'mnist' read square pictures whose side 4 divides, not 30x30"):
        trunk((1, 30, 30))
    with pytest.raises(UserError, match="unknown nets 'mnst'. Did you mean 'mnist'"):
        generator((1, 16, 16), 4, "mnst")
    with pytest.raises(UserError, match="wide must be a finite number above 0, not 0"):
        head_D((1, 16, 16), wide=0.0)
