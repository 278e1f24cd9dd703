"""GZS-Net: the swap, the three steps by hand and with a perfect codec, what each term sees, the relaxed sampler."""

import pytest
import torch
from methods.family import equal, rng, weights
from test_toys import like_a_capture
from torch import nn

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import Renderer, Spec
from disentkit.data.factors import FactorSpace, category
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import gzsnet
from disentkit.methods.aeds import AEDS
from disentkit.methods.aeds import Settings as SettingsDS
from disentkit.methods.gzsnet import GZSNet, Settings, swap
from disentkit.models import adam, frozen

LEVELS = torch.tensor([0.2, 0.4, 0.6, 0.8])


class Bars(Renderer):
    """Three grey bars, each attribute the grey of its own: what belongs to which attribute can be read off by hand."""

    name = "bars"
    image_shape = (1, 16, 16)
    space = FactorSpace([category(name, *"abcd") for name in ("left", "middle", "right")])

    def render(self, values):
        grey = LEVELS[values.long()]  # (n, 3)
        return grey.repeat_interleave(torch.tensor([5, 5, 6]), 1)[:, None, None, :].expand(-1, 1, 16, 16).contiguous()


class ReadBars(nn.Module):
    """Pictures in [-1, 1] -> the greys of the bars."""

    def forward(self, x):
        return (x[:, 0, 8, [2, 7, 12]] + 1) / 2


class DrawBars(nn.Module):
    """Greys -> what tanh makes the picture of."""

    def forward(self, z):
        grey = z.repeat_interleave(torch.tensor([5, 5, 6]), 1)[:, None, None, :].expand(-1, 1, 16, 16)
        return torch.atanh(2 * grey - 1)


def groups(seed: int = 0, n: int = 6) -> torch.Tensor:
    """Values (n, 5, 3): the centre, three partners that share one attribute each, and one that shares none."""
    centre = torch.randint(4, (n, 1, 3), generator=rng(seed))
    others = (centre + torch.randint(1, 4, (n, 4, 3), generator=rng(seed + 1))) % 4
    others[:, torch.arange(3), torch.arange(3)] = centre[:, 0]
    return torch.cat([centre, others], dim=1).float()


def batch(seed: int = 0, n: int = 6) -> dict:
    return {"group": Bars().render(groups(seed, n).flatten(0, 1)).unflatten(0, (n, 5))}


def pairs(seed: int = 0, n: int = 6) -> dict:
    """The relaxed sampler's keys: pairs that agree in one attribute, and pairs that agree in none."""
    edges = torch.randint(4, (n, 3, 2, 3), generator=rng(seed))
    for j in range(3):
        edges[:, j, 1, j] = edges[:, j, 0, j]
    strangers = groups(seed, n)[:, [0, 4]]
    draw = Bars().render
    return {
        "edges": draw(edges.flatten(0, 2)).unflatten(0, (n, 3, 2)),
        "strangers": draw(strangers.flatten(0, 1)).unflatten(0, (n, 2)),
    }


def build(cls=GZSNet, perfect=False, **settings):
    few = {"d": 1 if perfect else 4, "nets": "small", "fc": 16, "wide": 0.125, "size": 16, "steps": 4, "batch": 6}
    if cls is GZSNet:
        few |= {"lam_cover": 1.0, "lam_latent": 1.0}
    made = (Settings if cls is GZSNet else SettingsDS)(**few | settings)
    with seeded(0):
        learner = cls(made, Spec((1, 16, 16), Bars.space))
    if perfect:
        learner.auto.encoder, learner.auto.decoder = ReadBars(), DrawBars()
    learner.rng = rng(7)
    return learner.train()


# ---- swaps


def test_swap_exchanges_one_block_and_twice_is_nothing():
    codes = CodeSpace([Block("a", "free", (2,)), Block("b", "free", (3,))])
    z, other = torch.randn(4, 5, generator=rng(0)), torch.randn(4, 5, generator=rng(1))
    u, v = swap(z, other, codes, "b")
    assert torch.equal(u, torch.cat([z[:, :2], other[:, 2:]], 1)) and torch.equal(v[:, :2], other[:, :2])
    assert equal(swap(u, v, codes, "b"), (z, other))


def test_swapping_equal_blocks_changes_nothing():
    learner = build(perfect=True)
    x = batch()["group"]
    z = learner.encoded(x)
    for j, name in enumerate(Bars.space.names):
        u, v = swap(z[:, 0], z[:, j + 1], learner.auto.codes, name)
        torch.testing.assert_close(learner.auto.decode(u), x[:, 0])
        torch.testing.assert_close(learner.auto.decode(v), x[:, j + 1])


# ---- the step


@pytest.mark.parametrize("sampler, drawn", [("group", batch), ("edge", pairs)])
@pytest.mark.parametrize("loss", ["L1", "L2"])
def test_a_perfect_codec_has_no_loss(sampler, drawn, loss, monkeypatch):
    losses = _losses(build(perfect=True, sampler=sampler, loss=loss), drawn(), monkeypatch)
    assert set(losses) == {"L_r", "L_sr", "L_csr", "L_latent"} | ({"L_cover"} if sampler == "group" else set())
    assert all(value < 1e-5 for value in losses.values()), losses


def test_each_term_finds_its_own_fault(monkeypatch):
    """Blocks in the wrong order pass step 1 and fail step 2; a block that holds everything passes steps 1 and 2 of the
    others' turns and fails its own."""
    learner = build(perfect=True)
    learner.auto.encoder = nn.Sequential(ReadBars(), Permuted([1, 0, 2]))
    learner.auto.decoder = nn.Sequential(Permuted([1, 0, 2]), DrawBars())
    losses = _losses(learner, batch(), monkeypatch)
    assert losses["L_r"] < 1e-5 and losses["L_sr"] > 0.3 and losses["L_cover"] > 0.1

    learner = build(perfect=True)
    everything = CodeSpace([Block("left", "free", (1,)), Block("middle", "free", (1,)), Block("right", "free", (3,))])
    learner.auto.codes = everything  # the hiding place: all three greys in the block `right`
    learner.auto.encoder = nn.Sequential(ReadBars(), Padded())
    learner.auto.decoder = nn.Sequential(Unpadded(), DrawBars())
    x = batch()["group"]
    z = learner.encoded(x)
    for j, name in enumerate(everything.names):
        u, _ = swap(z[:, 0], z[:, j + 1], everything, name)
        kept = (learner.auto.decode(u) - x[:, 0]).abs().mean() < 1e-5
        assert kept == (name != "right")  # never swapped, it would never be found


class Permuted(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, z):
        return z[:, self.order]


class Padded(nn.Module):
    def forward(self, z):
        return torch.cat([torch.zeros(len(z), 2), z], dim=1)


class Unpadded(nn.Module):
    def forward(self, z):
        return z[:, 2:]


def _losses(learner, batch, monkeypatch) -> dict:
    """The terms of a step that changes nothing, as numbers."""
    anything = {"auto": adam([torch.zeros(1, requires_grad=True)], torch.tensor(0.0))}
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)
    return {name: float(value) for name, value in learner.step(anything, batch).items()}


def test_one_step_by_hand():
    """The step's gradients are those of the algorithm box written picture by picture."""
    learner = build(lam_sr=0.7, lam_csr=0.3, lam_cover=0.2, lam_latent=0.5)
    auto, names, x = learner.auto, Bars.space.names, batch()["group"]
    j = torch.randint(3, (6, 1), generator=rng(7))[:, 0]

    def l1(made, true):
        return (2 * made - 2 * true).abs().mean()

    z = [auto.encode(x[:, p]) for p in range(5)]
    L_r = sum(l1(auto.decode(z[p]), x[:, p]) for p in range(5))
    L_sr = 0
    for k, name in enumerate(names):
        u, v = auto.codes.swap(z[0], z[k + 1], name), auto.codes.swap(z[k + 1], z[0], name)
        L_sr = L_sr + l1(auto.decode(u), x[:, 0]) + l1(auto.decode(v), x[:, k + 1])
    cover = torch.cat([auto.codes.read(z[k + 1], name) for k, name in enumerate(names)], dim=1)
    L_cover = l1(auto.decode(cover), x[:, 0])
    first, other = z[0].clone(), z[4].clone()
    for i in range(6):
        at = list(auto.codes[names[j[i]]].at)
        first[i, at], other[i, at] = z[4][i, at], z[0][i, at]
    y, ybar = auto.encode(auto.decode(first)), auto.encode(auto.decode(other))
    L_latent = torch.cat([(y - first).abs(), (ybar - other).abs()]).mean()
    second, secondbar = y.clone(), ybar.clone()
    for i in range(6):
        at = list(auto.codes[names[j[i]]].at)
        second[i, at], secondbar[i, at] = ybar[i, at], y[i, at]
    L_csr = l1(auto.decode(second), x[:, 0]) + l1(auto.decode(secondbar), x[:, 4])
    total = L_r + 0.7 * L_sr + 0.3 * L_csr + 0.2 * L_cover + 0.5 * L_latent
    wanted = torch.autograd.grad(total, list(auto.parameters()))

    losses = learner.step(learner.optimizers(), batch())
    by_hand = {"L_r": L_r, "L_sr": L_sr, "L_csr": L_csr, "L_cover": L_cover, "L_latent": L_latent}
    assert set(losses) == set(by_hand)
    for name, value in by_hand.items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-4, atol=1e-5)
    for p, g in zip(auto.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-5)


def test_terms_that_weigh_nothing_are_left_out(monkeypatch):
    plain = build(lam_sr=0.0, lam_csr=0.0, lam_cover=0.0, lam_latent=0.0)
    assert set(_losses(plain, batch(), monkeypatch)) == {"L_r"}
    assert set(_losses(build(lam_csr=0.0, lam_cover=0.0), batch(), monkeypatch)) == {"L_r", "L_sr", "L_latent"}


def test_the_cycle_sets_in_over_the_ramp():
    """At t = 0 the cycle teaches nothing; at the end of the ramp all of it."""
    gradients = []
    for ramp, t in ((10, 0.0), (0, 0.0), (10, 10.0)):
        learner = build(ramp=ramp)
        learner.t.fill_(t)
        learner.step(learner.optimizers(), batch())
        gradients.append([p.grad.clone() for p in learner.auto.parameters()])
    without = build(lam_csr=0.0, lam_latent=0.0)
    without.step(without.optimizers(), batch())
    assert all(torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(gradients[0], without.auto.parameters()))
    assert equal(gradients[1], gradients[2]) and not torch.allclose(gradients[0][0], gradients[1][0], atol=1e-5)


def test_the_step_size_falls_at_the_end():
    s = Settings(lr=0.1, anneal=0.5, steps=100)
    found = [float(gzsnet.rate(torch.tensor(float(t)), s)) for t in (0, 50, 75, 100)]
    assert found == pytest.approx([0.1, 0.1, 0.05, 0.0], abs=1e-7)
    assert float(gzsnet.rate(torch.tensor(99.0), Settings(lr=0.1, steps=100))) == pytest.approx(0.1)
    learner = build(anneal=1.0, steps=4)
    opt = learner.optimizers()
    learner.t.fill_(2)
    learner.step(opt, batch())
    assert float(opt["auto"].param_groups[0]["lr"]) == pytest.approx(learner.settings.lr / 2)


def test_every_block_takes_its_turn_in_the_cycle():
    learner = build()
    drawn = learner.drawn_block(3000)
    assert (drawn.sum(1) == 1).all() and ((drawn.float().mean(0) - 1 / 3).abs() < 0.04).all()


@pytest.mark.parametrize("loss", gzsnet.LOSSES)
def test_one_batch_can_be_learned(loss):
    learner = build(loss=loss, lr=3e-3, fc=64, wide=0.5)
    opt = learner.optimizers()
    x = batch()["group"]
    x = {"group": x.round() if loss == "BCE" else x}  # of grey pixels the cross-entropy cannot come near 0
    first = learner.step(opt, x)
    for _ in range(60):
        last = learner.step(opt, x)
    assert last["L_r"] < 0.7 * first["L_r"] and last["L_sr"] < 0.7 * first["L_sr"]


@pytest.mark.parametrize("sampler, drawn", [("group", batch), ("edge", pairs)])
def test_the_step_reads_nothing_back(sampler, drawn):
    learner = build(sampler=sampler, ramp=5)
    opt, x = learner.optimizers(), drawn()
    learner.step(opt, x)
    with like_a_capture():
        losses = learner.step(opt, x)
    assert all(v.ndim == 0 and not v.requires_grad for v in losses.values())


# ---- networks, blocks, presets


@pytest.mark.parametrize("table, size", [("paper", 32), ("paper", 64), ("small", 16), ("small", 32), ("small", 64)])
def test_networks_of_every_size(table, size):
    settings = Settings(d=3, d_first=5, nets=table, fc=8, wide=0.125, size=size)
    auto = gzsnet.GroupAutoencoder((3, size, size), ("a", "b", "c"), settings)
    x = torch.rand(2, 3, size, size)
    assert [block.size for block in auto.codes] == [5, 3, 3] and auto.encode(x).shape == (2, 11)
    made = auto.decode(auto.encode(x))
    assert made.shape == x.shape and made.min() >= 0 and made.max() <= 1


def test_the_papers_network_has_the_sizes_of_the_released_code():
    with torch.device("meta"):
        auto = gzsnet.GroupAutoencoder((3, 128, 128), tuple("abcde"), Settings())
    linear = [tuple(m.weight.shape) for m in auto.modules() if isinstance(m, nn.Linear)]
    assert linear == [(4096, 16384), (100, 4096), (4096, 100), (16384, 4096)]
    assert round(sum(p.numel() for p in auto.parameters()) / 1e6, 1) == 143.0
    assert not any(m.track_running_stats for m in auto.modules() if isinstance(m, nn.InstanceNorm2d))


def test_the_kits_network_is_small():
    course = GZSNet.PRESETS["course", "fonts"]
    auto = gzsnet.GroupAutoencoder((3, 64, 64), tuple("abcde"), course)
    assert course.size == 64 and sum(p.numel() for p in auto.parameters()) < 2.5e6


def test_evaluation_is_the_same_network():
    """Instance norm of the present picture, in training and out of it."""
    auto = gzsnet.GroupAutoencoder((3, 32, 32), ("a", "b"), Settings(fc=8, wide=0.125, size=32))
    x = torch.rand(4, 3, 32, 32, generator=rng(0))
    train = auto.encode(x).detach()
    with frozen(auto):
        torch.testing.assert_close(auto.encode(x), train)


# ---- AE+DS


def labelled(seed: int = 0) -> dict:
    values = groups(seed).flatten(0, 1)
    return {"x": Bars().render(values), "factors": values}


def test_each_classifier_teaches_its_own_block():
    learner = build(AEDS)
    opt = learner.optimizers()
    seen = {}
    read = learner.logits

    def watched(z):
        seen["z"] = z
        z.retain_grad()
        return read(z)

    learner.logits = watched
    losses = learner.step(opt, labelled())
    assert set(losses) == {"L_r", "L_ds", "accuracy"} and losses["accuracy"].shape == (3,)
    for j, name in enumerate(Bars.space.names):
        z = seen["z"].detach().requires_grad_()
        read(z)[j].sum().backward()
        (block,) = (b for b in learner.auto.codes if b.name == name)
        outside = [i for i in range(z.shape[1]) if i not in block.at]
        assert z.grad[:, outside].abs().max() == 0 < z.grad[:, list(block.at)].abs().max()


def test_aeds_sums_l1_and_cross_entropies():
    learner, data = build(AEDS, lam_ds=0.5), labelled()
    z = learner.auto.encode(data["x"])
    L_r = (2 * learner.auto.decode(z) - 2 * data["x"]).abs().mean()
    L_ds = sum(nn.functional.cross_entropy(logits, a) for logits, a in zip(learner.logits(z), data["factors"].long().T))
    wanted = torch.autograd.grad(L_r + 0.5 * L_ds, list(learner.parameters()))
    losses = learner.step(learner.optimizers(), data)
    torch.testing.assert_close(losses["L_r"], L_r.detach())
    torch.testing.assert_close(losses["L_ds"], L_ds.detach())
    for p, g in zip(learner.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-5)


def test_without_supervision_the_classifiers_learn_nothing():
    learner = build(AEDS, lam_ds=0.0)
    before = weights(learner.classifiers)
    learner.step(learner.optimizers(), labelled())
    assert equal(before, weights(learner.classifiers))


# ---- bad input


@pytest.mark.parametrize("cls", [GZSNet, AEDS])
@pytest.mark.parametrize(
    "space, words",
    [
        (None, "learns from labels, and these data have none"),
        ([category("left", "a"), category("right", "a", "b")], "'left' has one value only"),
        ([category("left", "a", "b")], "nothing can be exchanged"),
    ],
)
def test_data_without_exchangeable_attributes(cls, space, words):
    settings = (Settings if cls is GZSNet else SettingsDS)(nets="small", fc=8, size=16)
    with pytest.raises(UserError, match=words):
        cls(settings, Spec((1, 16, 16), space and FactorSpace(space)))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"loss": "L3"}, "unknown loss 'L3'"),
        ({"sampler": "pairs"}, "unknown sampler 'pairs'"),
        ({"lam_sr": -1.0}, "lam_sr must be 0 or more"),
        ({"nets": "large"}, "unknown nets 'large'"),
        ({"anneal": 1.5}, "anneal is a share of the steps"),
        ({"wide": 17.0}, "wide can be 16 at most"),
        ({"fc": 10**6}, "fc must be a whole number in 1 ... 16384"),
        ({"nets": "paper"}, "32 pixels or more, not 16; take nets='small'"),
        ({"d": 10**6}, "a block can hold 65,536 numbers at most"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(UserError, match=words):
        build(**settings)


@pytest.mark.parametrize("shape", [(1, 16, 32), (1, 24, 24), (3, 256, 256)])
def test_pictures_that_no_table_reads(shape):
    with pytest.raises(UserError, match="square pictures of 16, 32, 64, 128 pixels"):
        GZSNet(Settings(nets="small", fc=8, size=shape[-1]), Spec(shape, Bars.space))
