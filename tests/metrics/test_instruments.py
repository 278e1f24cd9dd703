"""Instruments against pictures whose objects are known, against each other, and what they refuse."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys
from discs import Discs

from disentkit import metrics, models
from disentkit.data import dsprites, scenes
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Real
from disentkit.methods.steered import Steered
from disentkit.metrics import ExactMask, Saliency, Segmented, Threshold, agreement, instrument_error
from disentkit.metrics.instruments import LEAST, NAMES, blurred, expectation, moments, otsu, period

DISCS = Discs()
SCENES = scenes.Scenes(64)
SPRITES = dsprites.DSprites(64, Real())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Truth:
    """A segmenter that is never wrong: it knows the masks of the pictures it is shown."""

    image_shape = (3, 16, 16)

    def __init__(self, masks, shift=0):
        self.masks, self.shift = masks, shift

    def mask(self, x):
        return torch.roll(self.masks[: len(x)], self.shift, dims=3)


class Known(torch.nn.Module):
    """A judge whose logits are told."""

    image_shape = (3, 16, 16)

    def __init__(self, space, logits):
        super().__init__()
        self.space, self.told = space, logits

    def logits(self, x):
        return [part[: len(x)] for part in self.told]


# ---- the mask's moments


def test_moments_by_hand():
    mask = torch.zeros(3, 1, 4, 8)
    mask[0, 0, 1, 2] = 1  # one pixel: its centre
    mask[1, 0, :, 4:] = 1  # the right half
    x, y, area = moments(mask)
    assert x[:2].tolist() == [2.5 / 8, 6 / 8] and y[:2].tolist() == [1.5 / 4, 0.5]
    assert area.tolist() == [1 / 32, 0.5, 0] and x[2].isnan() and y[2].isnan()
    soft = torch.rand(5, 1, 7, 9, generator=rng())
    x, y, area = moments(soft)
    for i, m in enumerate(soft[:, 0].double()):
        places = [(float(m[r, c]), (c + 0.5) / 9, (r + 0.5) / 7) for r in range(7) for c in range(9)]
        total = sum(w for w, _, _ in places)
        assert float(x[i]) == pytest.approx(sum(w * px for w, px, _ in places) / total, abs=1e-6)
        assert float(y[i]) == pytest.approx(sum(w * py for w, _, py in places) / total, abs=1e-6)
        assert float(area[i]) == pytest.approx(total / 63, abs=1e-6)
    with pytest.raises(ValueError, match=r"masks must be \(N, 1, H, W\), not \(2, 3, 4, 4\)"):
        moments(torch.zeros(2, 3, 4, 4))


def test_the_exact_mask_reads_what_was_asked_for():
    values = DISCS.law.draw(DISCS.space, 300, rng())
    images, codes = DISCS.render(values), DISCS.code_of(values)
    instrument = ExactMask(DISCS)
    read = instrument(images, codes)
    assert instrument.names == NAMES and read.shape == (300, 4) and read.dtype == torch.float32
    assert torch.allclose(read[:, :2], values[:, :2], atol=0.006)
    assert torch.allclose(read[:, 2], (values[:, 2] * math.sqrt(math.pi) / 2).log(), atol=0.02)
    assert torch.allclose(read[:, 3], images.mean((1, 2, 3)))
    larger = values.clone()
    larger[:, 2] *= math.exp(0.1)  # zoom is the ln of the scale
    assert float((instrument(images, DISCS.code_of(larger)) - read)[:, 2].mean()) == pytest.approx(0.1, abs=0.005)
    assert torch.equal(ExactMask(Steered(DISCS))(images, codes), read)
    assert instrument(images[:0], codes[:0]).shape == (0, 4)


def test_the_exact_mask_of_a_generator():
    """A model whose `mask` takes its codes, as the oracle's does."""
    codes = torch.rand(6, 2, generator=rng())
    asked = []
    model = SimpleNamespace(
        codes=SimpleNamespace(check=lambda c: c), mask=lambda c: asked.append(c) or torch.ones(6, 1, 8, 8)
    )
    read = ExactMask(model)(torch.zeros(6, 3, 8, 8), codes)
    assert torch.equal(asked[0], codes) and torch.equal(read, torch.tensor([0.5, 0.5, 0, 0]).expand(6, 4))


# ---- pictures alone


def test_threshold_on_sprites():
    values = SPRITES.law.draw(SPRITES.space, 200, rng())
    values[:, 0] = values[:, 0].clamp(max=1)  # a heart's barycentre is not its centre
    images = SPRITES.render(values)
    read = Threshold()(images)
    assert torch.allclose(read[:, :2], 0.25 + 0.5 * values[:, 3:], atol=0.01)
    assert torch.allclose(read[:, 2], images.mean((1, 2, 3)).log() / 2) and torch.equal(
        read[:, 3], images.mean((1, 2, 3))
    )
    assert torch.equal(Threshold(0.2)(0.3 * images)[:, :3], read[:, :3])
    assert Threshold(0.4)(0.3 * images)[:, :3].isnan().all()
    assert torch.equal(Threshold()(images.repeat(1, 3, 1, 1))[:, :3], read[:, :3])
    moved = torch.roll(images, (3, -2), dims=(2, 3))
    assert torch.allclose(Threshold()(moved)[:, :2] - read[:, :2], torch.tensor([-2 / 64, 3 / 64]), atol=1e-6)


def test_nothing_found_is_nan():
    few = torch.zeros(3, 1, 64, 64)
    few[1, 0, 0, :12] = 1  # 12 of 4096 pixels: just too few
    few[2, 0, 0, :13] = 1
    read = Threshold()(few)
    assert 12 / 4096 < LEAST < 13 / 4096
    assert read[:2, :3].isnan().all() and read[2].isfinite().all() and read[:, 3].isfinite().all()
    even = Saliency()(torch.full((2, 3, 32, 32), 0.4))
    assert even[:, :3].isnan().all() and even[:, 3].tolist() == pytest.approx([0.4, 0.4])


def test_saliency_finds_what_stands_out():
    images = SPRITES.sample(200, rng())["x"]
    for side in (None, 64):
        found, exact = Saliency(side=side)(images), Threshold()(images)
        assert ((found - exact)[:, :2].abs() < 0.05).float().mean() > 0.97
    maps = Saliency(side=32).map(images)
    assert maps.shape == (200, 1, 32, 32) and (maps.amin((1, 2, 3)) == 0).all() and (maps.amax((1, 2, 3)) == 1).all()
    assert Saliency().map(torch.rand(2, 3, 40, 20)).shape == (2, 1, 10, 10)


def test_a_soft_barycentre_understates_motion():
    """Before a ground that has something to see, too. Measured: a slope of 0.85 against 0.43."""
    hard, soft = (instrument_error(Saliency(soft), SCENES, n=200) for soft in (False, True))
    assert hard.loc["x", "slope"] > 0.7 and soft.loc["x", "slope"] < 0.6
    assert hard.loc["x", "correlation"] > 0.9 and hard.loc["zoom", "correlation"] < 0.5  # areas it reads badly


def test_the_spectral_residual():
    """Against the formula written out for one picture, in numpy."""
    picture = torch.rand(1, 1, 16, 16, generator=rng())
    spectrum = np.fft.fft2(picture[0, 0].double().numpy())
    log = np.log(np.abs(spectrum))
    near = sum(np.roll(log, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    found = np.abs(np.fft.ifft2(np.exp(log - near + 1j * np.angle(spectrum)))) ** 2
    found = blurred(torch.tensor(found)[None, None], 2.5 / 4)[0, 0]
    found = (found - found.min()) / (found.max() - found.min())
    assert torch.allclose(Saliency(side=16).map(picture)[0, 0], found.float(), atol=1e-4)
    flat = torch.full((1, 1, 9, 9), 0.3)
    assert torch.allclose(blurred(flat, 1.5), flat)
    dot = torch.zeros(1, 1, 31, 31)
    dot[0, 0, 15, 15] = 1
    x = torch.arange(31.0) - 15
    assert float((blurred(dot, 2.0)[0, 0].sum(0) * x.square()).sum()) == pytest.approx(4, rel=0.05)


def test_otsu_is_the_best_of_all_thresholds():
    maps = torch.cat([torch.rand(300, generator=rng()) ** 3, 0.8 + 0.2 * torch.rand(100, generator=rng(1))])
    maps = torch.stack([maps, 5 - 2 * maps]).view(2, 1, 20, 20)

    def between(values, threshold):
        up = values > threshold
        share = up.mean()
        return share * (1 - share) * (values[up].mean() - values[~up].mean()) ** 2 if up.any() and not up.all() else 0

    for values, threshold in zip(maps.flatten(1).double().numpy(), otsu(maps).tolist()):
        best = max(between(values, t) for t in values)
        assert between(values, threshold) == pytest.approx(best, rel=0.01)
    two = torch.tensor([[0.2, 0.9, 0.9, 0.2]]).view(1, 1, 2, 2)
    assert ((two > otsu(two)) == (two > 0.5)).all()
    flat = torch.full((1, 1, 4, 4), 0.7)
    assert not (flat > otsu(flat)).any()


# ---- a segmenter and a judge


def test_segmented():
    values = DISCS.law.draw(DISCS.space, 40, rng())
    images, masks = DISCS.render(values), DISCS.mask(values)
    read, exact = Segmented(Truth(masks))(images), ExactMask(DISCS)(images, DISCS.code_of(values))
    assert torch.allclose(read, exact, atol=0.1) and not torch.equal(read, exact)  # half pixels are lost
    assert torch.allclose(Segmented(Truth(masks, 1))(images)[:, 0] - read[:, 0], torch.tensor(1 / 16), atol=1e-6)
    assert Segmented(Truth(0 * masks))(images)[:, :3].isnan().all()


def test_the_judges_other_factors():
    values = DISCS.space.from_grid(DISCS.space.draw_grid(300, rng()))
    images, masks = DISCS.render(values), DISCS.mask(values)
    index = DISCS.space.to_grid(values)
    sure = [100 * torch.nn.functional.one_hot(i, n).float() for i, n in zip(index.T, DISCS.space.sizes)]
    instrument = Segmented(Truth(masks), Known(DISCS.space, sure))
    assert instrument.names == (*NAMES, "hue", "ground", "light")
    read = instrument(images[:200])
    assert read.shape == (200, 7) and torch.allclose(read[:, 4:], values[:200, 3:], atol=1e-5)
    gone = Segmented(Truth(0 * masks), instrument.judge)(images)
    assert gone[:, :3].isnan().all() and gone[:, 3:].isfinite().all()


def test_expectation():
    real = Factor("light", "real", (0.0, 1.0, 4.0))
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.2, 0.3, 0.5]])
    assert expectation(real, shares.log()).tolist() == pytest.approx([0.5, 2.5, 2.3])
    assert expectation(category("kind", "a", "b", "c"), shares.log()).tolist()[1:] == [1, 2]
    hue = Factor("hue", "cyclic", (0.0, 0.25, 0.5, 0.75))
    shares = torch.tensor([[0.5, 0.0, 0.0, 0.5], [0.5, 0.5, 0, 0], [0, 0, 0.9, 0.1]])
    read = expectation(hue, shares.log()).tolist()
    assert read[:2] == pytest.approx([0.875, 0.125]) and 0.5 < read[2] < 0.55  # the short way round
    turn = SPRITES.space["orientation"]
    assert period(hue) == 1 and period(turn) == pytest.approx(2 * math.pi)
    assert expectation(turn, 100 * torch.eye(40)[[3, 30]]).tolist() == pytest.approx([turn.values[3], turn.values[30]])


# ---- agreement and error


def test_where_they_disagree():
    values = DISCS.law.draw(DISCS.space, 100, rng())
    images, codes, masks = DISCS.render(values), DISCS.code_of(values), DISCS.mask(values)
    lost = masks.clone()
    lost[:10] = 0
    instruments = {"exact": ExactMask(DISCS), "moved": Segmented(Truth(masks, 1)), "lost": Segmented(Truth(lost))}
    frame = agreement(instruments, images, codes)
    assert list(frame.columns) == ["first", "second", "factor", "pictures", "correlation", "slope", "difference",
                                   "disagree", "one_only"]  # fmt: skip
    assert [tuple(r) for r in frame[["first", "second", "factor"]].to_numpy()][::3] == [
        ("exact", "moved", "x"), ("exact", "lost", "x"), ("moved", "lost", "x")]  # fmt: skip
    assert list(frame["pictures"]) == [100] * 3 + [90] * 6 and list(frame["one_only"]) == [0] * 3 + [0.1] * 6
    pair = frame.groupby(["first", "second"])
    moved = pair.get_group(("moved", "lost")).set_index("factor")
    assert moved.loc["x", "difference"] == pytest.approx(1 / 16, abs=1e-6) and moved.loc["x", "disagree"] == 1
    assert moved.loc[["y", "zoom"], "difference"].tolist() == [0, 0]
    assert np.allclose(moved[["correlation", "slope"]], 1)
    assert (pair.get_group(("exact", "lost"))["correlation"] > 0.97).all()
    loose = agreement(instruments, images, codes, tolerance={"x": 0.1})
    assert loose.query("first == 'moved' and factor == 'x'")["disagree"].item() == 0
    listed = agreement([Threshold(), Saliency()], images)
    assert set(listed["first"]) == {"Threshold"} and set(listed["second"]) == {"Saliency"}
    still = agreement(instruments, images[:1].expand(5, -1, -1, -1), codes[:1].expand(5, -1))
    assert still["correlation"].isna().all() and still["slope"].isna().all()


def test_the_error_of_an_instrument():
    frame = instrument_error(ExactMask(DISCS), DISCS, n=300)
    assert list(frame.index) == ["x", "y", "zoom"] and (frame[["bias", "error", "failures"]] == 0).all(axis=None)
    assert np.allclose(frame[["slope", "correlation"]], 1)

    def off(images, codes):  # reads half of the way, a little to the right, and is blind to every other one
        read = ExactMask(DISCS)(images, codes)
        read[:, 0] = 0.5 * read[:, 0] + 0.3
        read[::2, :3] = math.nan
        return torch.cat([read, DISCS.values(codes)[:, 3:] + torch.tensor([0.95, 1.0, 0.1])], 1)

    wrong = SimpleNamespace(names=(*NAMES, "hue", "ground", "light"))
    wrong = type("Off", (), {"names": wrong.names, "__call__": lambda self, i, c: off(i, c)})()
    frame = instrument_error(wrong, DISCS, n=500)
    assert frame.loc["x", "slope"] == pytest.approx(0.5) and frame.loc["x", "bias"] == pytest.approx(0.05, abs=0.01)
    assert frame.loc["x", "correlation"] == pytest.approx(1) and list(frame["failures"]) == [0.5] * 3 + [0] * 3
    assert (
        frame.loc["hue"].tolist()[:2] == pytest.approx([-0.05, 0.05])
        and frame.loc["hue", "slope":"correlation"].isna().all()
    )
    assert frame.loc["ground", "error"] == 1 and math.isnan(frame.loc["ground", "bias"])
    assert frame.loc["light"].tolist() == pytest.approx([0.1, 0.1, 1, 1, 0], abs=1e-6)
    again = instrument_error(wrong, DISCS, n=500)
    assert again.equals(frame) and not instrument_error(wrong, DISCS, n=500, seed=1).equals(frame)


# ---- bad input


def test_bad_pictures():
    good = torch.rand(2, 3, 16, 16)
    for bad, told in {
        "none": r"images must be a tensor or an array, not str",
        good[0]: r"images must be \(N, C, H, W\) with C 1 or 3, not \(3, 16, 16\)",
        good[:, :2]: r"images must be \(N, C, H, W\) with C 1 or 3, not \(2, 2, 16, 16\)",
        good * math.nan: "the pictures hold NaN or infinite numbers: the model or its codes are broken",
        good * 2 - 1: r"pictures must lie in 0 \.\.\. 1, these reach from -\d",
    }.items():
        for instrument in (Threshold(), Saliency()):
            with pytest.raises(ValueError, match=told):
                instrument(bad)
    assert torch.allclose(Threshold()((good * 255).byte()), Threshold()((good * 255).byte().float() / 255))
    assert torch.equal(Threshold()(good.numpy()), Threshold()(good))


def test_what_instruments_refuse():
    images = torch.rand(2, 3, 16, 16)
    codes = DISCS.prior(3, rng())
    space = FactorSpace([Factor("light", "real", (0.0, 1.0))])
    judge = Known(space, [torch.zeros(2, 2)])
    judge.image_shape = (3, 32, 32)
    unsized = Truth(torch.ones(2, 1, 16, 16))
    unsized.image_shape = judge.image_shape
    for call, told in {
        lambda: ExactMask(toys.Dots()): "Dots has no exact masks: take Segmented, Saliency or Threshold",
        lambda: ExactMask(DISCS)(images): r"exact masks are drawn from codes: call instrument\(images, codes\)",
        lambda: ExactMask(DISCS)(images, codes): "2 images and 3 codes: row i of both must belong together",
        lambda: ExactMask(DISCS)(images, codes[:2, :3]): r"codes must be \(N, 7\)",
        lambda: Threshold(1.5): "level must lie between 0 and 1, not 1.5",
        lambda: Saliency(side=4): "side must be a whole number of at least 8, got 4",
        lambda: Segmented("scenes"): r"give segmenter.segmenter_of\(data\), not str",
        lambda: Segmented(unsized, "judge"): r"a judge is judging.judge_of\(data\), not str",
        lambda: Segmented(Truth(images), judge): r"the segmenter reads images \(3, 16, 16\), the judge \(3, 32, 32\)",
        lambda: Segmented(unsized, judge)(images): r"this judge reads images \(N, 3, 32, 32\), not \(2, 3, 16, 16\)",
        lambda: agreement([Threshold()], images): "agreement compares two instruments or more",
        lambda: agreement([Saliency(), Saliency(True)], images): r"called alike \(Saliency, Saliency\): give",
        lambda: agreement([Saliency(), Threshold()], images, tolerance={"z": 1}): "tolerance has no factor 'z'",
        lambda: instrument_error(Threshold(), toys.Dots()): "data set 'dots' has no masks, so nobody knows where",
        lambda: instrument_error(Threshold(), "scenes"): "an instrument's error is measured on a data set, not on str",
        lambda: instrument_error("exact", DISCS): "an instrument is a callable with names, not str",
        lambda: instrument_error(ExactMask(DISCS), DISCS, n=1): "n must be a whole number of at least 2",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=told):
            call()


def test_instruments_leave_no_trace():
    before, threads = toys_states(), torch.get_num_threads()
    values = DISCS.law.draw(DISCS.space, 20, rng())
    images = DISCS.render(values).requires_grad_()
    read = Segmented(Truth(DISCS.mask(values)), Known(DISCS.space, [torch.zeros(20, n) for n in DISCS.space.sizes]))(
        images
    )
    assert not read.requires_grad and not Saliency()(images).requires_grad
    assert toys.same(before, toys_states()) == "" and torch.get_num_threads() == threads
    assert isinstance(models.device_of(DISCS), torch.device) and metrics.instrument_error is instrument_error


def toys_states():
    return [torch.get_rng_state(), np.random.get_state()[1].tolist()]
