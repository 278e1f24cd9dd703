"""MixNMatch's networks: the tables layer by layer, critics whose noise is the run's own, and patches that fit."""

import pytest
import torch
from torch import nn

from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.nets import finegan
from disentkit.nets import mixnmatch as nets

TABLES = list(nets.TABLES)


def millions(net) -> float:
    return round(sum(p.numel() for p in net.parameters()) / 1e6, 2)


def sides(net, x) -> list[tuple[int, int]]:
    """(channels, side) of each map that a convolution of the network returns, in the order they are made."""
    found = []

    def hook(layer, args, out):
        found.append((out.shape[1], out.shape[-1]))

    hooks = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    net(x)
    for one in hooks:
        one.remove()
    return found


def critic(size=32, code=5, table="small", seed=0, **settings) -> nets.PairCritic:
    with seeded(seed):
        return nets.PairCritic(size, code, table, **settings)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_papers_widths_at_128_pixels():
    x = torch.rand(2, 3, 128, 128, device="meta")
    with torch.device("meta"):
        encoders = [nets.Encoder(128, out, "mixnmatch") for out in (100, 200, 20, 200)]
        critics = [nets.PairCritic(128, code, "mixnmatch") for code in (100, 200, 20, 200)]
        S, D_f = nets.FeatureNet(128, 16, "mixnmatch"), nets.FeatureDiscriminator(128, 16, "mixnmatch")
    halves = [64, 32, 16, 8, 4]
    assert sides(encoders[0], x) == [*zip((64, 128, 256, 512, 1024), halves), (512, 4), (512, 4), (100, 1)]
    assert sides(critics[0].picture, x) == [*zip((16, 32, 64, 128, 256), halves), (512, 1)]
    # Convolutions before a gated linear unit have twice the width they are named by.
    down = zip((64, 128, 256, 512, 1024, 1024), [*halves, 2])
    up = zip((512, 1024, 512, 256, 128, 32), [*reversed(halves), 128])
    res = [(32, 128), (16, 128)] * 2
    assert sides(S, x) == [(64, 128), (64, 128), *down, *up, *res]
    assert sides(D_f, torch.rand(2, 16, 128, 128, device="meta")) == [(32, 62), (64, 30), (128, 27), (1, 24)]
    # Weights in millions, counted from the released code's layers.
    assert [millions(net) for net in encoders] == [19.05, 19.87, 18.39, 19.87]
    assert [millions(net) for net in critics] == [4.42, 4.47, 4.38, 4.47]
    assert [millions(S), millions(D_f)] == [39.12, 0.17]


@pytest.mark.parametrize("size, codes, channels, counted", [
    (64, (16, 20, 5, 20), 16, [0.76, 0.76, 0.73, 0.76, 0.28, 0.28, 0.27, 0.28, 2.13]),
    (32, (8, 8, 4, 8), 8, [0.12, 0.12, 0.12, 0.12, 0.07, 0.07, 0.07, 0.07, 0.21]),
])  # fmt: skip
def test_small_tables_weigh_what_was_planned(size, codes, channels, counted):
    with torch.device("meta"):
        encoders = [nets.Encoder(size, out, "small") for out in codes]
        critics = [nets.PairCritic(size, code, "small") for code in codes]
        S = nets.FeatureNet(size, channels, "small")
    assert [millions(net) for net in (*encoders, *critics, S)] == counted


@pytest.mark.parametrize("wide", [0.25, 1.0])
@pytest.mark.parametrize("table, size", TABLES)
def test_shapes(table, size, wide):
    wide = wide if size < 128 else wide / 8
    x, y = 2 * torch.rand(2, 3, size, size) - 1, torch.rand(2, 7)
    F = nets.FeatureNet(size, 6, table, wide)(x)
    assert nets.Encoder(size, 7, table, wide)(x).shape == (2, 7)
    assert nets.PairCritic(size, 7, table, wide)(x, y, rng()).shape == (2,)
    assert F.shape == (2, 6, size, size) and F.min() < 0 < F.max()  # linear: no sign is left out
    n = finegan.patches(size, table).grid
    assert nets.FeatureDiscriminator(size, 6, table)(F).shape == (2, 1, n, n) and n == 24


def test_a_bound_is_4_tanh_of_the_same_numbers():
    with seeded(0):
        free = nets.Encoder(32, 8, "small")
    with seeded(0):
        bounded = nets.Encoder(32, 8, "small", bound=4.0)
    x = torch.rand(16, 3, 32, 32)
    torch.testing.assert_close(bounded(x), 4 * free(x).tanh())
    assert bounded(100 * x).abs().max() <= 4


def test_encoders_and_S_begin_orthogonal_and_critics_as_pytorch_has_it():
    with seeded(0):
        started = [net(32, 8, "small") for net in (nets.Encoder, nets.FeatureNet, nets.FeatureDiscriminator)]
    for net in started:
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert torch.linalg.svdvals(layer.weight.detach().flatten(1)) == pytest.approx(1, abs=1e-4)
                assert layer.bias is None or not layer.bias.any()
            if isinstance(layer, nn.BatchNorm2d):
                assert 0 < (layer.weight - 1).abs().mean() < 0.05 and not layer.bias.any()
    weight = critic().picture[0].weight  # Kaiming-uniform with a = sqrt(5): U(-1, 1) / sqrt(fan in)
    assert 0.9 < weight.abs().max() * 48**0.5 <= 1 and critic().picture[0].bias.any()


@pytest.mark.parametrize(
    "table, size, field, stride", [("mixnmatch", 128, 34, 4), ("small", 64, 16, 2), ("small", 32, 9, 1)]
)
def test_a_logit_of_D_f_sees_the_patch_of_D_b(table, size, field, stride):
    """Gradients of one logit reach exactly the pixels of its patch; maps of the view's side are not resized."""
    D_f, patches = nets.FeatureDiscriminator(size, 2, table), finegan.patches(size, table)
    assert (patches.field, patches.stride, patches.side) == (field, stride, D_f.side)
    x = torch.rand(1, 2, D_f.side, D_f.side, requires_grad=True)
    (grad,) = torch.autograd.grad(D_f(x)[0, 0, 3, 23], x)
    rows, columns = (grad[0].abs().sum(0).sum(axis).nonzero().flatten() for axis in (1, 0))
    assert (rows[0], rows[-1]) == (3 * stride, 3 * stride + field - 1)
    assert (columns[0], columns[-1]) == (23 * stride, D_f.side - 1)


def test_D_f_resizes_corner_on_corner():
    D_f = nets.FeatureDiscriminator(64, 1, "small")
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    torch.testing.assert_close(D_f(ramp), D_f(torch.linspace(0, 1, 62).expand(1, 1, 62, 62)), rtol=1e-4, atol=1e-5)


# ---- the critic


def test_noise_comes_from_the_generator_given():
    f, x, y = critic(), torch.rand(4, 3, 32, 32), torch.rand(4, 5)
    before = torch.get_rng_state()
    a, b, other = f(x, y, rng(1)), f(x, y, rng(1)), f(x, y, rng(2))
    assert torch.equal(a, b) and (a - other).abs().min() > 0
    assert torch.equal(before, torch.get_rng_state())
    drawn = rng(1)
    first, second = f(x, y, drawn), f(x, y, drawn)
    assert not torch.equal(first, second)


def test_noise_has_the_papers_sizes_and_stays_in_evaluation(monkeypatch):
    """The code branch written out by hand, with the three draws in their order."""
    f, x, y = critic(), torch.rand(256, 3, 32, 32), torch.rand(256, 5)
    noise = torch.randn(3, 256, 64, generator=rng())
    h = y
    for layer, std, drawn in zip(f.code, (0.5, 0.3, 0.3), noise):
        h = nn.functional.leaky_relu(layer(h), 0.2) + std * drawn
    wanted = f.joint(torch.cat([f.picture(x), h], 1)).squeeze(1)
    torch.testing.assert_close(f.eval()(x, y, rng()), wanted)
    monkeypatch.setattr(nets, "NOISE", (0.0, 0.0, 0.0))
    assert torch.equal(f(x, y, rng(1)), f(x, y, rng(2)))  # nothing else is random


def test_a_value_belongs_to_one_pair():
    f, x, y = critic(), torch.rand(4, 3, 32, 32, requires_grad=True), torch.rand(4, 5, requires_grad=True)
    for grad in torch.autograd.grad(f(x, y, rng())[1], (x, y)):
        assert (grad.flatten(1).norm(dim=1) > 0).tolist() == [False, True, False, False]


def test_both_gradients_can_be_penalised():
    """The double backward pass against finite differences of the penalty, in float64."""
    f = critic(wide=0.25).double()
    x, y = torch.rand(3, 3, 32, 32).double(), torch.rand(3, 5).double()

    def penalty():
        at = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        slopes = torch.autograd.grad(f(*at, rng()).sum(), at, create_graph=True)
        return sum((slope.flatten(1).norm(dim=1) - 1).square().mean() for slope in slopes)

    penalty().backward()
    for name in ("picture.0.weight", "picture.6.weight", "code.0.weight", "code.2.weight", "joint.0.weight"):
        weight = f.get_parameter(name)
        with torch.no_grad():
            direction, eps = torch.randn(weight.shape, generator=rng(3)).double(), 1e-6
            weight.add_(eps * direction)
        above = penalty().detach()
        with torch.no_grad():
            weight.sub_(2 * eps * direction)
        below = penalty().detach()
        with torch.no_grad():
            weight.add_(eps * direction)
        wanted = (above - below) / (2 * eps)
        assert (weight.grad * direction).sum() == pytest.approx(float(wanted), rel=1e-3, abs=1e-7), name


# ---- S


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_gate_is_pytorchs_and_hands_back_channels_last(order):
    x = torch.randn(4, 6, 8, 8, generator=rng()).contiguous(memory_format=order).requires_grad_()
    weigh = torch.randn(4, 3, 8, 8, generator=rng(1)).contiguous(memory_format=order)
    found, wanted = finegan.GLU()(x), nn.functional.glu(x, 1)
    torch.testing.assert_close(found, wanted)
    (ours,), (theirs,) = (torch.autograd.grad((y * weigh).sum(), x) for y in (found, wanted))
    torch.testing.assert_close(ours, theirs)
    if order == torch.channels_last:  # otherwise the pass backward of the batch norm before it is ten times slower
        assert found.is_contiguous(memory_format=order) and ours.is_contiguous(memory_format=order)


def test_S_passes_every_side_on_but_the_pictures_own():
    """Cutting the innermost map leaves S with its skips alone, which still tell two pictures apart; without the Downs
    there is nothing left of the picture: full resolution is passed on nowhere."""
    S, x = nets.FeatureNet(32, 8, "small", 0.5).eval(), torch.rand(2, 3, 32, 32)
    for cut, tells in (([2], True), ([0, 1, 2], False)):
        hooks = [S.down[i].register_forward_hook(lambda m, a, out: torch.zeros_like(out)) for i in cut]
        a, b = S(x)
        assert bool((a - b).abs().max() > 1e-4) == tells
        for one in hooks:
            one.remove()
    a, b = S(x)
    assert (a - b).abs().max() > 1e-4


@pytest.mark.parametrize("what, message", [
    (lambda: nets.Encoder(60, 8, "small"), "no table 'small' for pictures of 60 pixels; it has 'mixnmatch' at 128"),
    (lambda: nets.PairCritic(128, 8, "small"), "no table 'small' for pictures of 128 pixels"),
    (lambda: nets.FeatureNet(64, 8, "mixnmatch"), "no table 'mixnmatch' for pictures of 64 pixels"),
    (lambda: nets.FeatureDiscriminator(32, 8, "finegan"), "no table 'finegan' for pictures of 32 pixels"),
    (lambda: nets.Encoder(32, 8, "small", wide=0), "wide must be a finite number above 0, not 0"),
])  # fmt: skip
def test_what_no_table_reads_is_refused(what, message):
    with pytest.raises(UserError, match=message):
        what()
