"""The baselines of directions: toys whose answer is known, formulas written out again, and the models of the kit."""

import math

import pytest
import torch
from methods.family import draw, equal, rng, weights
from scipy.stats import spearmanr
from torch import nn

from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data.factors import category
from disentkit.methods import walks
from disentkit.methods.biggan import Sampler, Settings
from disentkit.methods.infogan import InfoModel
from disentkit.methods.infogan import Settings as InfoSettings
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered, make_direction
from disentkit.methods.vae import GaussianVAE

SHAPE = (3, 4, 4)


class FirstMap(nn.Module):
    """A generator of which only the first map matters, (3, 4, 4), of a class that does nothing and 5 numbers z.

    Along z0 the map looks moved to the right by one cell, along z1 down, along z2 enlarged; z3 and z4 are textures.
    """

    image_shape = SHAPE

    def __init__(self):
        super().__init__()
        self.codes = CodeSpace([Block("class", "onehot", (2,)), Block("z", "gaussian", (5,))])
        b = draw(*SHAPE)
        known = [self.moved(b, name) - b for name in ("x", "y", "zoom")]
        self.W = nn.Parameter(
            torch.stack([part.flatten() for part in [*known, draw(*SHAPE, seed=1), draw(*SHAPE, seed=2)]], 1)
        )
        self.b = nn.Parameter(b.flatten())

    @staticmethod
    def moved(b, name):
        moved = draw(*SHAPE, seed=3)  # what comes in from outside is anything
        if name == "x":
            moved[:, :, 1:] = b[:, :, :3]
        elif name == "y":
            moved[:, 1:] = b[:, :3]
        else:
            moved = nn.functional.interpolate(b[None], scale_factor=2, mode="bilinear")[0, :, 2:6, 2:6]
        return moved

    def first_layer(self):
        return self.W, self.b, SHAPE

    def level_weights(self):
        return {"z": self.W}

    def decode(self, codes):
        return (codes[:, 2:] @ self.W.T + self.b).sigmoid().view(-1, *SHAPE)


# ---- vectors


def test_random_directions_are_uniform_over_what_moves():
    model = FirstMap()
    rows = torch.stack([walks.random_direction(model, seed) for seed in range(150)])
    assert (rows[:, :2] == 0).all() and rows.shape == (150, 7)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(150))
    torch.testing.assert_close(rows[:, 2:].T @ rows[:, 2:] / 150, torch.eye(5) / 5, atol=0.08, rtol=0)
    assert torch.equal(rows[3], walks.random_direction(model, 3))


def test_a_unit_vector_needs_a_length():
    for broken in (torch.zeros(3), torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])):
        with pytest.raises(ValueError, match="zero, NaN or infinite"):
            walks.unit(broken)
    with pytest.raises(ValueError, match="no block that a direction could run through"):
        walks.moving(type("Classes", (), {"codes": CodeSpace([Block("class", "onehot", (3,))])}))


def test_a_calibrated_direction_moves_one_unit_per_step():
    w = torch.tensor([0.0, 3.0, 4.0])
    direction = walks.calibrated("x", w, "widths")
    z = draw(6, 3)
    torch.testing.assert_close(direction.move(z, 0.2), z + 0.2 * w, atol=1e-5, rtol=0)
    torch.testing.assert_close(direction.read(z + w) - direction.read(z), torch.ones(6, 1))
    assert direction.unit == "widths"


# ---- the linear walk


class Lamp(nn.Module):
    """Pictures of one grey: brightness is 0.5 + 0.04 z1, contrast of the two halves 0.05 z2; z0 does nothing."""

    image_shape = (1, 4, 4)
    codes = gaussian_blocks(3)

    def __init__(self):
        super().__init__()
        self.light = nn.Parameter(torch.tensor([0.04, 0.05]))
        self.drop = nn.Dropout(0.5)  # in training mode it would spoil everything

    def decode(self, codes):
        sides = torch.tensor([-1.0, -1.0, 1.0, 1.0])
        grey = 0.5 + self.light[0] * codes[:, 1, None] + self.light[1] * codes[:, 2, None] * sides
        return self.drop(grey)[:, None, None, :].expand(-1, 1, 4, 4)


def test_linear_walk_solves_a_linear_generator():
    model = Lamp().train()
    model.light.grad = torch.tensor([7.0, 7.0])
    settings = {"steps": 150, "lr": 0.8, "reach": 0.1}
    w = walks.walk_step(model, "brightness", **settings)
    torch.testing.assert_close(w[1:], torch.tensor([25.0, 0.0]), atol=0.5, rtol=0)  # 25 steps of 0.04 are one
    assert w[0].abs() < 0.3  # nothing moves it from where it began
    assert model.training and model.light.grad.tolist() == [7, 7] and model.light.requires_grad
    few = {"steps": 5, "lr": 0.8, "reach": 0.1}
    first = walks.walk_step(model, "brightness", **few)
    assert torch.equal(walks.linear_walk(model, "brightness", **few), walks.unit(first))
    assert not torch.equal(first, walks.walk_step(model, "brightness", seed=1, **few))


def test_linear_walk_says_when_it_breaks():
    def nan(x, target, mask):
        return (x - math.nan).mean((1, 2, 3))

    with pytest.raises(ValueError, match="the walk's loss is nan at step 0: take a smaller lr than 0.03, or"):
        walks.linear_walk(Lamp(), "brightness", loss=nan)


@pytest.mark.parametrize("name", ["x", "zoom"])
def test_linear_walk_finds_the_oracles_direction(name):
    model = OracleGenerator(size=32)
    w = walks.walk_step(model, name, steps=120, lr=0.05)
    assert float(walks.unit(w) @ model.u(name)) > 0.8  # the sign too
    steepest = model.g(name, 0.01) / 0.01
    assert 0.9 < float(w.norm() * steepest) < 2.5  # never a shorter step than g at its steepest asks for


# ---- the closed form


@pytest.mark.parametrize("name, along", [("x", 2), ("y", 3), ("zoom", 4)])
def test_closed_form_finds_the_direction_that_was_built_in(name, along):
    model = FirstMap()
    q = walks.closed_form(*model.first_layer(), name)
    torch.testing.assert_close(q, torch.eye(5)[along - 2], atol=1e-4, rtol=0)
    u = walks.closed_form_direction(Steered(model, [make_direction("other", torch.ones(7))]), name)
    torch.testing.assert_close(u, torch.eye(7)[along], atol=1e-4, rtol=0)
    step = walks.closed_form_step(model, name)  # per unit of t: a cell is a quarter of the width
    torch.testing.assert_close(float(step.norm()), 1 / math.log(2) if name == "zoom" else 4.0, atol=1e-3, rtol=0)


def test_closed_form_is_the_papers_formula():
    W, b = draw(48, 6).double(), draw(48, seed=1).double()
    P, D = torch.zeros(48, 48).double(), torch.eye(48).double()
    for c in range(3):
        for i in range(4):
            for j in range(4):
                here = 16 * c + 4 * i + j
                if j == 0:
                    D[here, here] = 0
                else:
                    P[here, here - 1] = 1
    q = torch.linalg.inv(W.T @ D @ D @ W) @ W.T @ D @ (P - D) @ b
    torch.testing.assert_close(walks.closed_form(W, b, SHAPE, "x").double(), q, atol=1e-5, rtol=0)

    def cost(q):  # E_z |D (W (z + q) + b) - P (W z + b)|^2 by Monte Carlo, the same z for all
        z = torch.randn(3000, 6, generator=rng(5)).double()
        z = torch.cat([z, -z])  # mean 0
        return (((z + q) @ W.T + b) @ D - (z @ W.T + b) @ P.T).square().sum(1).mean()

    assert all(cost(q) < cost(q + 0.1 * step) for step in torch.cat([torch.eye(6), -torch.eye(6)]).double())


def test_closed_form_needs_a_bias_and_a_map():
    W = draw(48, 6)
    for none in (None, torch.zeros(48)):
        with pytest.raises(ValueError, match="reads the first layer's bias, and this layer has none"):
            walks.closed_form(W, none, SHAPE, "x")
    with pytest.raises(ValueError, match="x, y or zoom, not by 'brightness'"):
        walks.closed_form(W, draw(48), SHAPE, "brightness")
    model = FirstMap()
    model.first_layer = lambda: (W, draw(48), SHAPE)
    with pytest.raises(ValueError, match="reads 6 numbers, but no block"):
        walks.closed_form_direction(model, "x")


# ---- lists without names


def test_sefa_reads_weights_of_unit_rows():
    A = torch.tensor([[5.0, 0, 0], [-0.1, 0, 0], [2, 0, 0], [0, 900, 0], [0, 1, 0], [0, 0, 3]])
    torch.testing.assert_close(walks.eigenvectors(A, 3).abs(), torch.eye(3))
    torch.testing.assert_close(walks.eigenvectors(A, 2), walks.eigenvectors(A, 3)[:2])
    A = draw(40, 6)
    unit = A / A.norm(dim=1, keepdim=True)
    gains = (walks.eigenvectors(A, 6) @ unit.T).square().sum(1)  # |A n|^2, largest first
    torch.testing.assert_close(gains, torch.linalg.svdvals(unit).square(), atol=1e-3, rtol=0)


def test_ganspace_finds_the_axes_of_its_features():
    model = Lamp()
    turn = torch.linalg.qr(draw(20, 20))[0][:3]
    stretch = torch.tensor([1.0, 5.0, 2.0])
    rows = walks.ganspace(model, 3, features=lambda z: (z * stretch) @ turn + 4)
    torch.testing.assert_close(rows.abs(), torch.eye(3)[[1, 2, 0]], atol=0.1, rtol=0)
    assert torch.equal(rows, walks.ganspace(model, 3, features=lambda z: (z * stretch) @ turn + 4))
    # The columns of U are fitted, not the axes carried back: a feature that z enters squared adds no edit.
    rows = walks.ganspace(model, 1, features=lambda z: torch.stack([3 * z[:, 0], z[:, 1] ** 2], 1))
    assert rows[0, 0].abs() > 0.99
    with pytest.raises(ValueError, match="the features have 1 dimensions: 2 principal components"):
        walks.ganspace(model, 2, features=lambda z: z[:, :1] * torch.ones(4))


def test_ganspace_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    walks.ganspace(FirstMap(), 2, n=100)
    assert torch.equal(torch.random.get_rng_state(), before)


class Instrument:
    """Reads the oracle's factors from the code; NaN in every third row."""

    names = ("x", "y")

    def __init__(self, model):
        self.model = model

    def __call__(self, images, codes=None):
        values = self.model.factor_values(codes)[:, :2].clone()
        values[::3] = math.nan
        return values


def test_the_best_row_is_picked_by_an_instrument_and_turned_round():
    model = OracleGenerator(size=16)
    codes = model.prior(20, rng())
    score = walks.follows(model, Instrument(model), "x", codes)
    rows = torch.stack([model.u("y"), -model.u("x"), walks.random_direction(model)])
    assert score(model.u("x")) > 0.97 and score(-model.u("x")) < -0.97 and abs(score(model.u("zoom"))) < 0.2
    torch.testing.assert_close(walks.best(rows, score), model.u("x"))
    torch.testing.assert_close(walks.best(rows, lambda u: math.nan if u @ model.u("x") < -0.9 else 1.0), rows[0])
    with pytest.raises(ValueError, match="no direction could be scored"):
        walks.best(rows, lambda u: math.nan)
    with pytest.raises(ValueError, match="measures x, y, not 'zoom'"):
        walks.follows(model, Instrument(model), "zoom", codes)


def test_spearman_as_scipy_has_it():
    a = torch.randint(6, (50,), generator=rng()).float()
    b = a + 2 * draw(50)
    assert walks.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert walks.spearman(a, -a) == pytest.approx(-1)
    assert walks.spearman(a, torch.ones(50)) == 0 and walks.spearman(a[:1], b[:1]) == 0


# ---- the kit's models


def biggan() -> Sampler:
    torch.random.default_generator.manual_seed(0)
    model = Sampler((3, 16, 16), category("shape", "a", "b"), Settings(chunk=4, embed=4, ch=2, attention=0))
    nn.init.normal_(model.G.first.bias)
    return model


def vae() -> GaussianVAE:
    torch.random.default_generator.manual_seed(0)
    model = GaussianVAE((1, 16, 16), 6, 16)
    nn.init.normal_(model.decoder[2].bias)
    return model


def infogan() -> InfoModel:
    torch.random.default_generator.manual_seed(0)
    return InfoModel(
        (1, 16, 16), InfoSettings(noise=4, categories=3, continuous=2, nets="dsprites", wide=0.125, size=16)
    )


@pytest.mark.parametrize("build", [biggan, vae, infogan])
def test_every_baseline_takes_the_kits_generators(build):
    model = build()
    kept, modes = weights(model), [m.training for m in model.modules()]
    still = [i for block in model.codes if block.kind == "onehot" for i in block.at]
    found = [
        walks.random_direction(model),
        walks.linear_walk(model, "x", steps=2),
        walks.closed_form_direction(model, "x"),
        walks.closed_form_direction(model, "zoom"),
        *walks.sefa(model, 2),
        *walks.ganspace(model, 2, n=200),
    ]
    for u in found:
        assert u.shape == (model.codes.size,) and u.dtype == torch.float32 and not u.requires_grad
        torch.testing.assert_close(float(u.norm()), 1.0, atol=1e-5, rtol=0)
        assert (u[still] == 0).all()
    assert equal(kept, weights(model)) and modes == [m.training for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


class Mean:
    names = ("mean",)

    def __call__(self, images, codes=None):
        return images.mean((1, 2, 3))[:, None]


def test_chunks_stay_apart():
    model = biggan()
    at = list(model.codes["z1"].at)
    for u in (walks.closed_form_direction(model, "x"), *walks.ganspace(model, 3, n=200)):
        assert u[at].norm() == pytest.approx(1, abs=1e-5)  # the first layer reads z1 alone
    rows = walks.sefa(model, 3)
    assert rows.shape == (9, model.codes.size)  # three chunks
    for i, u in enumerate(rows):
        assert u[list(model.codes[f"z{i // 3 + 1}"].at)].norm() == pytest.approx(1, abs=1e-5)
    score = walks.follows(model, Mean(), "mean", model.prior(4, rng()))
    assert score(walks.sefa_best(model, score, 2)) > 0 and score(walks.ganspace_best(model, score, 2, n=100)) > 0


def test_the_first_map_of_a_decoder_is_read_exactly_where_it_is_linear():
    class Plain(nn.Module):
        image_shape = SHAPE
        codes = gaussian_blocks(4)

        def __init__(self):
            super().__init__()
            self.decoder = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, SHAPE), nn.Sigmoid())

    model = Plain()
    W, b, shape, at = walks.first_layer(model)
    torch.testing.assert_close(W, model.decoder[0].weight.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(b, model.decoder[0].bias.detach(), atol=1e-5, rtol=0)
    assert shape == SHAPE and at == [0, 1, 2, 3]

    model = vae()  # here a ReLU comes first, so it is the nearest affine map
    W, b, _, _ = walks.first_layer(model)
    z = draw(2000, 6, seed=9)
    with torch.no_grad():
        left = model.decoder[:3](z) - z @ W.T - b
    assert left.mean().abs() < 0.02 and (z.T @ left / 2000).abs().mean() < 0.02


@pytest.mark.parametrize("method", [
    lambda m: walks.closed_form_direction(m, "x"), walks.sefa, walks.ganspace,
])  # fmt: skip
def test_a_renderer_has_no_first_layer(method):
    with pytest.raises(ValueError, match="OracleGenerator has no linear first layer to read: give the model"):
        method(OracleGenerator(size=16))
    model = Lamp()
    model.decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16))
    if method is not walks.sefa:
        with pytest.raises(ValueError, match="never unflattens"):
            method(model)
