"""BigGAN's networks: spectral norm, rewritten convolutions, and every part against what it is written as."""

import pytest
import torch
import torch.nn.functional as F
from methods.family import draw
from torch import nn

from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.nets import biggan as nets

SHAPE = (3, 32, 32)


def generator(shape=SHAPE, classes: int = 3, **settings) -> nets.Generator:
    with seeded(0):
        return nets.Generator(shape, classes, **{"chunk": 4, "ch": 1, "embed": 5} | settings)


def discriminator(shape=SHAPE, classes: int = 3, **settings) -> nets.Discriminator:
    with seeded(0):
        return nets.Discriminator(shape, classes, **{"ch": 4} | settings)


def picked(*classes: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(classes), 3).float()


# ---- spectral norm


def layers() -> dict[str, nn.Module]:
    with seeded(0):
        made = {"linear": nets.Linear(7, 5), "conv": nets.Conv(4, 6), "point": nets.Conv(6, 2, 1),
                "up": nets.Conv(4, 3, resize="up")}  # fmt: skip
    for i, layer in enumerate(made.values()):
        with torch.no_grad():
            layer.weight.copy_(3 * draw(*layer.weight.shape, seed=i))
    return made


@pytest.mark.parametrize("name", ["linear", "conv", "point", "up"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_used_weight_has_largest_singular_value_one(name, order):
    layer = layers()[name]
    if name != "linear":
        layer.to(memory_format=order)
    before = torch.linalg.svdvals(layer.used().detach().flatten(1))[0]
    assert abs(before - 1) > 0.01  # u still belongs to the weight of the beginning
    for _ in range(300):
        nets.power_iteration(layer)
    used, sigma = layer.used().detach(), torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
    assert torch.linalg.svdvals(used.flatten(1))[0] == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(used, layer.weight / sigma, rtol=1e-4, atol=1e-6)


def test_new_weights_are_orthogonal_and_biases_zero():
    for layer in (m for net in (generator(), discriminator()) for m in net.modules() if isinstance(m, nets.Spectral)):
        assert torch.linalg.svdvals(layer.weight.detach().flatten(1)) == pytest.approx(1, abs=1e-4)
        torch.testing.assert_close(layer.used(), layer.weight, rtol=1e-4, atol=1e-5)
        assert layer.bias is None or not layer.bias.any()


def test_a_gradient_flows_through_sigma():
    """The used weight knows no scale, so its gradient has no part along the weight once u and v are right."""
    layer = layers()["linear"]
    for _ in range(300):
        nets.power_iteration(layer)
    loss = (layer(draw(9, 7)) ** 3).sum()
    (grad,) = torch.autograd.grad(loss, layer.weight)
    cosine = (grad * layer.weight).sum() / (grad.norm() * layer.weight.norm())
    assert abs(cosine) < 1e-4 and grad.norm() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_leaves_u_and_v_alone(training):
    G, D = generator().train(training), discriminator().train(training)
    both = nn.ModuleDict({"G": G, "D": D})
    kept = {name: buffer.clone() for name, buffer in both.named_buffers()}
    D(G(picked(0, 1), draw(2, 16)), picked(0, 1))
    moved = {name for name, buffer in both.named_buffers() if not torch.equal(kept[name], buffer)}
    assert not any(name.endswith((".u", ".v")) for name in moved)
    assert bool(moved) == training  # the statistics of batch norms
    with torch.no_grad():
        D.linear.weight.add_(draw(1, 32))
    nets.power_iteration(D)
    assert not torch.equal(kept["D.linear.v"], D.linear.v)


def test_used_weights_by_name():
    G = generator()
    with torch.no_grad():
        G.blocks[0].conv1.weight.mul_(7)
    used = nets.used_weights(G)
    assert set(used) == {name for name, _ in G.named_parameters()}
    assert torch.equal(used["blocks.0.conv1.weight"], G.blocks[0].conv1.used())
    assert used["embed.weight"] is G.embed.weight and used["norm.bias"] is G.norm.bias
    plain = generator(spectral=False)
    assert not any(name.endswith((".u", ".v")) for name in plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(nets.used_weights(plain).values(), plain.parameters(), strict=True))


# ---- parts


@pytest.mark.parametrize("resize", ["up", "down"])
@pytest.mark.parametrize("side", [2, 8])
def test_one_convolution_with_stride_is_the_two_steps_it_stands_for(resize, side):
    layer = nets.Conv(4, 6, resize=resize).double()
    with torch.no_grad():
        layer.bias.copy_(torch.arange(6))
    x = draw(2, 4, side, side).double().requires_grad_()
    if resize == "up":
        wanted = F.conv2d(F.interpolate(x, scale_factor=2), layer.used(), layer.bias, padding=1)
    else:
        wanted = F.avg_pool2d(F.conv2d(x, layer.used(), layer.bias, padding=1), 2)
    found = layer(x)
    torch.testing.assert_close(found, wanted)
    weigh = torch.rand_like(wanted)
    grads = [torch.autograd.grad((y * weigh).sum(), [x, layer.weight, layer.bias]) for y in (found, wanted)]
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs)


def test_conditional_norm_is_batch_norm_times_one_plus_gain():
    norm, x, y = nets.ConditionalNorm(4, 3), 5 + 2 * draw(6, 4, 8, 8), draw(6, 3)
    plain = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x, torch.zeros(6, 3)), plain, rtol=1e-4, atol=1e-5)  # no bias terms
    gain, bias = y @ norm.gain.used().T, y @ norm.bias.used().T
    wanted = plain * (1 + gain)[:, :, None, None] + bias[:, :, None, None]
    torch.testing.assert_close(norm(x, y), wanted, rtol=1e-4, atol=1e-4)
    assert norm.gain.bias is norm.bias.bias is None and norm.norm.weight is norm.norm.bias is None


def test_attention_is_nothing_at_first_and_then_what_it_is_written_as():
    look, x = nets.Attention(8).double(), draw(2, 8, 4, 4).double()
    assert torch.equal(look(x), x)
    with torch.no_grad():
        look.gamma.fill_(0.7)
    for n in range(2):
        ask, key, value = look.theta(x)[n].flatten(1), look.phi(x)[n], look.g(x)[n]  # (1, 16), (1, 4, 4), (4, 4, 4)
        places = [(slice(i, i + 2), slice(j, j + 2)) for i in (0, 2) for j in (0, 2)]
        keys = torch.stack([key[:, r, c].amax((1, 2)) for r, c in places])  # (4, 1)
        values = torch.stack([value[:, r, c].amax((1, 2)) for r, c in places])  # (4, 4)
        seen = torch.stack([(keys @ ask[:, p]).softmax(0) @ values for p in range(16)])  # (16, 4)
        wanted = x[n] + 0.7 * look.o(seen.T.reshape(1, 4, 4, 4))[0]
        torch.testing.assert_close(look(x)[n], wanted)


def test_blocks_are_what_they_are_written_as():
    """Convolution 1x1 and change of side may change places."""
    up, x, y = nets.UpBlock(4, 6, 3).double().eval(), draw(2, 4, 8, 8).double(), draw(2, 3).double()
    h = F.conv2d(F.interpolate(up.norm1(x, y).relu(), scale_factor=2), up.conv1.used(), up.conv1.bias, padding=1)
    wanted = up.conv2(up.norm2(h, y).relu()) + up.skip(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(up(x, y), wanted)
    for first in (True, False):
        down = nets.DownBlock(4, 6, first).double()
        h = F.conv2d(down.conv1(x if first else x.relu()).relu(), down.conv2.used(), down.conv2.bias, padding=1)
        torch.testing.assert_close(down(x), F.avg_pool2d(h + down.skip(x), 2))
    same = nets.DownBlock(4, 4, down=False).double()
    torch.testing.assert_close(same(x), x + same.conv2(same.conv1(x.relu()).relu()))


# ---- the two players


@pytest.mark.parametrize("side, levels, widths", [
    (16, 3, [16, 16, 8]), (32, 4, [16, 16, 8, 4]), (64, 5, [16, 16, 8, 4, 2]), (128, 6, [16, 16, 8, 4, 2, 1]),
])  # fmt: skip
def test_tables(side, levels, widths):
    shape, c = (3, side, side), picked(0, 1)
    G, D = generator(shape, ch=2), discriminator(shape)
    assert nets.levels(shape) == levels == 1 + len(G.blocks) == len(D.blocks)
    assert [block.conv1.in_channels for block in G.blocks] == [2 * w for w in widths[:-1]]
    assert [block.conv1.out_channels for block in G.blocks] == [2 * w for w in widths[1:]]
    assert [block.conv1.out_channels for block in D.blocks] == [4, 8, 16, 32, 32, 32][:levels]
    assert [block.down for block in D.blocks] == [True] * (levels - 1) + [False]
    x = G(c, draw(2, 4 * levels))
    assert x.shape == (2, *shape) and x.abs().max() <= 1 and x.std() > 0.05
    assert D(x, c).shape == (2,)


def test_weights_of_the_course():
    G, D = nets.Generator((3, 64, 64), 4, attention=16), nets.Discriminator((3, 64, 64), 4, attention=16)
    assert [sum(p.numel() for p in net.parameters()) for net in (G, D)] == [565_284, 601_650]


def test_each_chunk_reaches_its_own_level_first():
    G, seen = generator().eval(), {}
    for name, module in [("z1", G.first), *((f"z{i}", block) for i, block in enumerate(G.blocks, 2))]:
        module.register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out))
    z, c = draw(2, 16), picked(0, 1)
    with torch.no_grad():
        G(c, z)
        before = dict(seen)
        for k, name in enumerate(before):
            moved = z.clone()
            moved[:, 4 * k : 4 * k + 4] += 1
            G(c, moved)
            same = [torch.equal(before[level], seen[level]) for level in before]
            assert same == [True] * k + [False] * (4 - k), name
        G(c.flip(0), z)  # the class reaches every level but the first
        assert [torch.equal(before[level], seen[level]) for level in before] == [True, False, False, False]


def test_logit_is_linear_plus_projection():
    D, x, c = discriminator(), draw(4, *SHAPE).tanh(), picked(0, 1, 2, 1)
    h = D.features(x)
    wanted = [D.linear(h[n]) + D.embed.used()[:, k] @ h[n] for n, k in enumerate((0, 1, 2, 1))]
    torch.testing.assert_close(D(x, c), torch.cat(wanted), rtol=1e-4, atol=1e-4)
    assert (D(x, c) - D(x, c.flip(1)))[[0, 2]].abs().min() > 1e-4
    seen = x
    for block in D.blocks:
        seen = block(seen)
    torch.testing.assert_close(h, seen.relu().sum((2, 3)))
    torch.testing.assert_close(D(x[:2], c[:2]), D(x, c)[:2], rtol=1e-4, atol=1e-4)  # pictures do not mix


def test_without_classes():
    G, D, none = generator(classes=0), discriminator(classes=0), torch.zeros(2, 0)
    x = G(none, draw(2, 16))
    assert G.embed is None and D.embed is None and G.blocks[0].norm1.gain.in_features == 4
    torch.testing.assert_close(D(x, none), D.linear(D.features(x))[:, 0])


@pytest.mark.parametrize("side", [8, 16])
def test_attention_stands_on_the_maps_of_its_side(side):
    G, D, seen = generator(attention=side).eval(), discriminator(attention=side), []
    for net in (G, D):
        net.look.register_forward_hook(lambda m, a, out: seen.append(a[0].shape[2]))
    D(G(picked(0), draw(1, 16)), picked(0))
    assert seen == [side, side]
    assert generator().look is None and discriminator().look is None


def test_what_is_refused():
    for shape in ((3, 60, 60), (3, 32, 16), (3, 256, 256)):
        with pytest.raises(UserError, match="square pictures of 16, 32, 64 or 128 pixels"):
            nets.levels(shape)
    with pytest.raises(UserError, match="attention is the side of a map, one of 8, 16, 32, or 0 for none; not 64"):
        generator(attention=64)
    with pytest.raises(UserError, match="one of 8, 16, or 0 for none; not 32"):
        discriminator(attention=32)
