"""ES: scores against brute force, the best sharing out against all of them, and known groups that must be found."""

import itertools

import numpy as np
import pytest
import torch
import toys
from methods.family import rng
from sklearn.metrics import mutual_info_score
from torch import nn

from disentkit import models
from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.methods import exhaustive
from disentkit.methods.exhaustive import assign, balanced, importance, search

SPACE = FactorSpace([category("shape", "a", "b", "c"), Factor("x", "real", (0.0, 1.0, 2.0, 3.0, 4.0))])


def test_importance_is_mutual_information_standardised():
    draws = np.random.default_rng(0)
    codes, classes = draws.normal(size=(800, 4)), draws.integers(0, 3, (800, 2))
    codes[:, 2] += 2 * classes[:, 1]
    bins = [np.digitize(column, np.quantile(column, np.arange(1, 5) / 5)) for column in codes.T]
    nats = np.array([[mutual_info_score(b, c) for c in classes.T] for b in bins])
    torch.testing.assert_close(importance(codes, classes, bins=5), (nats - nats.mean(0)) / nats.std(0))
    scores = importance(torch.from_numpy(codes), torch.from_numpy(classes))
    assert scores[:, 1].argmax() == 2
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scores.std(0), 1)


def test_scale_and_sign_of_a_latent_do_not_matter():
    draws = np.random.default_rng(0)
    codes, classes = draws.normal(size=(500, 3)), draws.integers(0, 3, (500, 2))
    np.testing.assert_allclose(importance(codes, classes), importance(100 * codes + 3, classes), atol=1e-9)
    assert np.abs(importance(codes, classes) - importance(-codes, classes)).max() < 0.6  # ties at edges, no more
    assert (importance(np.ones((50, 3)), classes[:50]) == 0).all()  # no latent says more than another


@pytest.mark.parametrize("sizes", [{"a": 2, "b": 2, "c": 2}, {"a": 1, "b": 3, "c": 1}])
def test_assignment_is_the_best_of_all(sizes):
    scores = np.random.default_rng(3).normal(size=(6, 3))
    found = assign(scores, sizes)
    assert {name: len(latents) for name, latents in found.items()} == sizes
    chosen = [d for latents in found.values() for d in latents]
    assert len(set(chosen)) == len(chosen) and all(latents == sorted(latents) for latents in found.values())
    owners = np.repeat([0, 1, 2], list(sizes.values()))
    best = max(scores[list(order), owners].sum() for order in itertools.permutations(range(6), len(owners)))
    total = sum(scores[latents, j].sum() for j, latents in enumerate(found.values()))
    assert total == pytest.approx(best)


def test_latents_are_shared_out_equally():
    assert balanced(100, "abcde") == dict.fromkeys("abcde", 20)
    assert balanced(10, ["a", "b", "c", "d"]) == {"a": 3, "b": 3, "c": 2, "d": 2}


class Oracle(nn.Module):
    """A picture of 2x3 pixels is its code, in another order; x is in two latents, the shape in two, noise in none."""

    image_shape = (1, 2, 3)

    def __init__(self, blocks: CodeSpace):
        super().__init__()
        self.codes = blocks
        self.register_buffer("order", torch.tensor([3, 0, 5, 1, 4, 2]))

    def encode(self, x):
        return x.flatten(1)[:, self.order]

    def decode(self, codes):
        return codes[:, self.order.argsort()].reshape(-1, 1, 2, 3)


def latents() -> Oracle:
    return Oracle(gaussian_blocks(6))


def pictures(n: int = 1500) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels 0, 1 follow x, pixels 2, 3 the shape, 4, 5 nothing; the rest is noise."""
    values = SPACE.from_grid(SPACE.draw_grid(n, rng(0)))
    noise = torch.rand(n, 6, generator=rng(1))
    true = torch.stack([values[:, 1] / 4, 1 - values[:, 1] / 4, values[:, 0] / 2, values[:, 0] / 2], 1)
    pixels = noise.clone()
    pixels[:, :4] = 0.8 * true + 0.2 * noise[:, :4]
    return pixels.reshape(n, 1, 2, 3), values


@pytest.mark.parametrize("given", ["pictures", "codes"])
def test_search_finds_known_groups_in_shuffled_order(given):
    model = latents()
    x, values = pictures()
    view = search(model, x if given == "pictures" else model.encode(x), values, SPACE, {"shape": 2, "x": 2})
    place = {int(pixel): f"z{d}" for d, pixel in enumerate(model.order)}  # of each pixel in the code
    assert set(view.groups["x"]) == {place[0], place[1]} and set(view.groups["shape"]) == {place[2], place[3]}
    assert view.codes.names[:2] == ("shape", "x") and set(view.codes.names[2:]) == {place[4], place[5]}
    assert view.scores.shape == (6, 2)

    codes = models.encode(view, x[:4])
    torch.testing.assert_close(models.decode(view, codes), x[:4])
    swapped = models.decode(view, view.codes.swap(codes, codes.flip(0), "shape")).flatten(1)
    wanted = x[:4].flatten(1).clone()
    wanted[:, 2:4] = wanted.flip(0)[:, 2:4]
    torch.testing.assert_close(swapped, wanted)
    assert all(torch.equal(block.write(codes, block.read(codes)), codes) for block in view.codes)


def test_without_sizes_all_latents_are_shared_out():
    view = search(latents(), *pictures(500), SPACE)
    assert view.codes.names == ("shape", "x") and [block.size for block in view.codes] == [3, 3]


def test_blocks_that_are_no_scalars_stay():
    model = Oracle(CodeSpace([*gaussian_blocks(4), Block("rest", "free", (2,))]))
    view = search(model, *pictures(500), SPACE)
    assert view.codes.names == ("shape", "x", "rest") and view.codes["rest"].at == (4, 5)


def test_a_view_is_a_model_wherever_one_is_asked_for():
    from disentkit.metrics.blocks import block_stats

    model, batch = toys.build("Toy").model, toys.Dots().sample(300, rng(0))
    view = search(model, batch["x"], batch["factors"], toys.Dots.space)
    assert isinstance(view, models.Model) and models.can_encode(view) and view.device.type == "cpu"
    assert torch.equal(models.encode(view, batch["x"]), models.encode(model, batch["x"]))
    assert [row["name"] for row in block_stats(view, toys.Dots(), n=100)] == ["kind", "x", "y", "light"]
    drawn = view.prior(3, rng(0))
    assert models.decode(view, drawn).shape == (3, 1, 16, 16) and not hasattr(view, "posterior")
    assert torch.equal(drawn, model.prior(3, rng(0)))


def test_a_posterior_is_passed_on():
    model = latents()
    model.posterior = lambda x: (model.encode(x), torch.zeros(len(x), 6))
    view = exhaustive.Regrouped(model, {"x": ["z0", "z3"]})
    mu, logvar = models.posterior(view, pictures(20)[0])
    assert mu.shape == logvar.shape == (20, 6) and torch.equal(mu, model.encode(pictures(20)[0]))


WIDE = CodeSpace([Block("all", "free", (6,))])


@pytest.mark.parametrize("what, message", [
    (lambda: importance(np.zeros((5, 2)), np.zeros((4, 1))), "codes have 5 rows and classes 4"),
    (lambda: importance(np.full((5, 2), np.nan), np.zeros((5, 1))), "codes hold NaN or infinite numbers"),
    (lambda: importance(np.zeros(5), np.zeros((5, 1))), "codes must be a table"),
    (lambda: importance(np.zeros((5, 2)), np.zeros((5, 1)), bins=1), "bins must be 2 or more, not 1"),
    (lambda: assign(np.zeros((3, 2)), {"a": 2, "b": 2}), "3 latents cannot be shared out among attributes that get 4"),
    (lambda: assign(np.zeros((3, 2)), {"a": 2}), "scores have 2 columns for 1 attributes"),
    (lambda: assign(np.zeros((3, 2)), {"a": 2, "b": 0}), "every attribute must get a latent or more"),
    (lambda: balanced(2, "abc"), "2 latents cannot be shared out among 3 attributes"),
    (lambda: search(latents(), *pictures(20), SPACE, {"x": 1, "shape": 1}), "sizes name x, shape, but"),
    (lambda: search(latents(), torch.zeros(5, 4), torch.zeros(5, 2), SPACE), r"codes must be \(N, 6\)"),
    (lambda: search(latents(), torch.zeros(5, 6), torch.full((5, 2), 9.0), SPACE), "factor 'shape' is 9"),
    (lambda: search(Oracle(WIDE), *pictures(20), SPACE), "0 latents cannot be shared"),
])  # fmt: skip
def test_bad_input_is_refused(what, message):
    with pytest.raises(ValueError, match=message):
        what()
