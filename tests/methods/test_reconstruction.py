"""Errors of reconstruction: against convolutions and loops, what masks hide, and the argument about squared error."""

import math
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods.family import rng
from torch import nn

from disentkit.data.base import Spec
from disentkit.data.factors import FactorSpace, category
from disentkit.errors import UserError
from disentkit.judges import Judge, Settings
from disentkit.machine import seeded
from disentkit.methods.reconstruction import (
    LOSSES,
    Features,
    Filtered,
    best_amplitude,
    filtered_error,
    gain,
    gaussian_band,
    lpips_error,
    radial_spectrum,
    ssim_error,
)


def pictures(n: int = 3, size: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=rng(seed))


def half(x: torch.Tensor) -> torch.Tensor:
    """A mask whose left half is undefined, with one fractional column."""
    mask = torch.ones_like(x[:, :1])
    mask[..., : x.shape[3] // 2] = 0
    mask[..., x.shape[3] // 2] = 0.4
    return mask


def judge(size: int = 32) -> Judge:
    with seeded(0):
        return Judge(Settings(width=4, fc=8), Spec((3, size, size), FactorSpace([category("kind", "a", "b")])))


ERRORS = {
    "squared": Filtered(0),
    "filtered": Filtered(1.5),
    "ssim": ssim_error,
    "features": Features(judge()),
}
each = pytest.mark.parametrize("name", ERRORS)


# ---- what all of them keep


@each
def test_equal_pictures_have_no_error_and_others_have(name):
    x, y = pictures(), pictures(seed=1)
    for mask in (torch.ones_like(x[:, :1]), half(x)):
        assert ERRORS[name](x, x, mask).abs().max() < 1e-5
        assert (ERRORS[name](x, y, mask) > 1e-4).all() and ERRORS[name](x, y, mask).shape == (3,)


@each
def test_undefined_pixels_count_for_nothing(name):
    x, y, other = pictures(), pictures(seed=1), pictures(seed=2)
    mask = half(x)
    seen = torch.where(mask > 0, x, other)  # other pictures where nothing is defined
    torch.testing.assert_close(ERRORS[name](x, y, mask), ERRORS[name](seen, y, mask))
    x.requires_grad_()
    ERRORS[name](x, y, mask).sum().backward()
    assert x.grad.isfinite().all() and (x.grad[..., :12] == 0).all() and (x.grad[..., 13:] != 0).any()


@each
def test_rows_do_not_see_each_other(name):
    x, y = pictures(), pictures(seed=1)
    mask = half(x)
    together = ERRORS[name](x, y, mask)
    alone = [ERRORS[name](x[i : i + 1], y[i : i + 1], mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-7)


@each
def test_gradients_go_down(name):
    x, y, mask = pictures().requires_grad_(), pictures(seed=1), half(pictures())
    error = ERRORS[name](x, y, mask)
    (slope,) = torch.autograd.grad(error.sum(), x)
    step = 1e-2 * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (ERRORS[name](x - step, y, mask) < error).all()


@each
def test_wrong_shapes_are_named(name):
    x = pictures()
    with pytest.raises(ValueError, match=r"are compared, not \(3, 3, 24, 24\), \(3, 3, 24, 24\) and \(3, 3, 24, 24\)"):
        ERRORS[name](x, x, x)


# ---- seen through a Gaussian


@pytest.mark.parametrize("sigma", [0.75, 1.5, 3.0])
def test_the_filter_is_the_convolution(sigma):
    x, y = pictures().double(), pictures(seed=1).double()
    mask = half(x)
    reach = math.ceil(3 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    line /= line.sum()
    kernel = (line[:, None] * line).expand(3, 1, -1, -1)
    seen = mask * F.conv2d(mask * (x - y), kernel, padding=reach, groups=3)
    wanted = seen.square().mean((1, 2, 3)) / mask.mean((1, 2, 3))
    torch.testing.assert_close(filtered_error(x, y, mask, sigma), wanted)


def test_without_sigma_it_is_the_masked_squared_error():
    x, y = pictures(), pictures(seed=1)
    mask = torch.zeros_like(x[:, :1])
    mask[..., :10] = 1
    wanted = (x - y)[..., :10].square().mean((1, 2, 3))
    torch.testing.assert_close(Filtered(0)(x, y, mask), wanted)


@pytest.mark.parametrize("wavelength", [8, 16, 32])
def test_gain_is_what_the_filter_leaves(wavelength):
    wave = torch.cos(2 * math.pi * torch.arange(96) / wavelength)
    x = wave.expand(1, 1, 96, 96).double()
    ones = torch.ones(1, 1, 96, 96, dtype=torch.float64)
    band = gaussian_band(96, 3.0)
    middle = slice(16, 80)  # away from the border, and whole waves
    left = (band @ wave.double())[middle].square().mean().sqrt() / wave[middle].square().mean().sqrt()
    assert float(left) == pytest.approx(gain(3.0, wavelength), abs=0.01)
    ratio = filtered_error(x, 0 * x, ones, 3.0) / filtered_error(x, 0 * x, ones, 0.0)
    assert 0.7 * gain(3.0, wavelength) ** 2 < float(ratio) < 1.1 * gain(3.0, wavelength) ** 2 + 0.01  # borders lose


def test_gain_of_the_sheet():
    table = {8: 0.06, 12: 0.29, 16: 0.50, 24: 0.73, 32: 0.84, 64: 0.96}
    for wavelength, wanted in table.items():
        assert gain(3.0, wavelength) == pytest.approx(wanted, abs=0.005)
    assert gain(1.5, 5.34 * 1.5) == pytest.approx(0.5, abs=0.001) and gain(0, 8) == 1
    torch.testing.assert_close(gain(3.0, torch.tensor([8.0, 16.0])), torch.tensor([gain(3.0, 8.0), gain(3.0, 16.0)]))
    assert gain(3.0, np.array([8.0]))[0] == pytest.approx(gain(3.0, 8.0))


def test_the_filter_forgives_detail_and_not_a_shift():
    """A texture of another phase costs next to nothing; a moved disc costs almost what it did."""
    place = torch.arange(64.0)
    mask = torch.ones(1, 1, 64, 64)
    one, other = (0.5 + 0.2 * torch.cos(2 * math.pi * (place + by) / 4).expand(1, 1, 64, 64) for by in (0, 2))
    assert Filtered(1.5)(one, other, mask) < 0.01 * Filtered(0)(one, other, mask)
    left, right = (((place - at) ** 2 + (place[:, None] - 32) ** 2 < 100).float()[None, None] for at in (22, 42))
    assert Filtered(1.5)(left, right, mask) > 0.6 * Filtered(0)(left, right, mask)


@pytest.mark.parametrize("sigma", [-1, math.nan, math.inf])
def test_sigma_must_be_a_width(sigma):
    with pytest.raises(ValueError, match="sigma must be a finite number of pixels"):
        Filtered(sigma)


def test_a_target_without_defined_pixels_has_no_error():
    x = pictures()
    assert Filtered(1.5)(x, x, torch.zeros_like(x[:, :1])).isnan().all()


# ---- SSIM, features, LPIPS


def test_ssim_is_the_formula_of_its_paper():
    """Window by window, over one picture; at the border only the part inside weighs."""
    x, y = pictures(1, 14), (pictures(1, 14) + 0.3 * pictures(1, 14, seed=1)).clamp(0, 1)
    line = torch.exp(-0.5 * (torch.arange(-5, 6) / 1.5) ** 2)
    total = []
    for i in range(14):
        for j in range(14):
            rows, columns = slice(max(i - 5, 0), i + 6), slice(max(j - 5, 0), j + 6)
            w = line[max(5 - i, 0) : 5 + 14 - i][:, None] * line[max(5 - j, 0) : 5 + 14 - j]
            w = w / w.sum()
            for c in range(3):
                a, b = x[0, c, rows, columns], y[0, c, rows, columns]
                ma, mb = (w * a).sum(), (w * b).sum()
                va, vb, cov = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
                top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
                total.append(top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    wanted = 1 - torch.stack(total).mean()
    assert float(ssim_error(x, y, torch.ones(1, 1, 14, 14))) == pytest.approx(float(wanted), abs=1e-5)


def test_ssim_of_an_inverted_texture_is_worse_than_of_none():
    x = 0.5 + 0.2 * torch.cos(torch.arange(24) * math.pi / 2).expand(1, 1, 24, 24)
    mask = torch.ones(1, 1, 24, 24)
    assert ssim_error(x, 1 - x, mask) > ssim_error(x, 0 * x + 0.5, mask) > 0.5


def test_features_are_the_judges_own_maps():
    reader = judge()
    reader.eval()
    x, y = pictures(2, 32), pictures(2, 32, seed=1)
    total, a, b = 0, x, y
    for number, module in enumerate(reader.net[:6], 1):
        a, b = module(a), module(b)
        if number % 3 == 0:
            f, g = (z / (z.square().sum(1, keepdim=True) + 1e-6).sqrt() for z in (a, b))
            total = total + (f - g).square().sum(1).mean((1, 2)) / 2
    got = Features(reader, layers=2)(x, y, torch.ones(2, 1, 32, 32))
    torch.testing.assert_close(got, total)
    torch.testing.assert_close(Features(reader.net, 2)(x, y, torch.ones(2, 1, 32, 32)), got)


def test_features_leave_the_judge_as_it_was():
    reader = judge().train()
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    x = pictures(2, 32).requires_grad_()
    Features(reader)(x, pictures(2, 32, seed=1), torch.ones(2, 1, 32, 32)).sum().backward()
    assert reader.training and reader.net.training
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in reader.net.parameters())


def test_features_of_black_pictures_have_gradients():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU())
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    Features(net, 1)(x, pictures(1, 8), torch.ones(1, 1, 8, 8)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("layers", [0, 4])
def test_features_need_so_many_maps(layers):
    with pytest.raises(ValueError, match=f"layers={layers}: this network has [03] maps after a ReLU"):
        Features(judge(), layers)


def test_lpips_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UserError, match="LPIPS needs the package lpips: pip install lpips"):
        lpips_error()


def test_lpips_sees_pictures_from_minus_one_to_one(monkeypatch):
    class Distance(nn.Module):
        def forward(self, a, b):
            assert a.shape[1] == b.shape[1] == 3
            assert a.min() >= -1 and a.max() <= 1 and a.min() < 0
            return (a - b).square().mean((1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=lambda net, verbose: Distance()))
    x, y = pictures(), pictures(seed=1)
    mask = torch.zeros_like(x[:, :1])
    mask[..., :12] = 1
    wanted = 4 * (x - y)[..., :12].square().mean((1, 2, 3))
    torch.testing.assert_close(lpips_error()(x, y, mask), wanted)
    torch.testing.assert_close(lpips_error()(x[:, :1], y[:, :1], mask), 4 * Filtered(0)(x[:, :1], y[:, :1], mask))


def test_losses_by_name():
    x, y, mask = pictures(), pictures(seed=1), half(pictures())
    assert torch.equal(LOSSES["filtered"](1.5)(x, y, mask), filtered_error(x, y, mask, 1.5))
    assert torch.equal(LOSSES["ssim"](1.5)(x, y, mask), ssim_error(x, y, mask))


# ---- why squared error blurs


def test_white_noise_has_its_variance_at_every_frequency():
    noise = 0.3 * torch.randn(200, 1, 32, 40, generator=rng())
    frequencies, power = radial_spectrum(noise)
    torch.testing.assert_close(frequencies, torch.arange(1, 17) / 32)
    torch.testing.assert_close(power, torch.full((16,), 0.09), rtol=0.1, atol=0)


def test_a_wave_stands_at_its_own_frequency():
    wave = torch.cos(2 * math.pi * torch.arange(64) / 8).expand(2, 3, 64, 64)
    for x in (wave, wave.mT):
        frequencies, power = radial_spectrum(0.5 + 0.2 * x)
        assert float(frequencies[power.argmax()]) == 1 / 8 and power.argmax() == 7
        assert power[14:].max() < 1e-4 * power.max()  # nothing leaks far


def test_a_blur_takes_the_gain_squared_from_the_spectrum():
    noise = torch.randn(100, 1, 64, 64, generator=rng())
    band = gaussian_band(64, 1.5).float()
    frequencies, power = radial_spectrum(band @ noise @ band)
    wanted = gain(1.5, 1 / frequencies[3:12]) ** 2
    torch.testing.assert_close(power[3:12] / radial_spectrum(noise)[1][3:12], wanted, rtol=0.15, atol=0.01)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 1.0])
def test_the_best_amplitude_has_the_least_error(rho):
    amplitudes = torch.linspace(0, 3, 3001)
    cost = 4 + amplitudes**2 - 2 * 2 * amplitudes * rho  # A = 2
    assert float(amplitudes[cost.argmin()]) == pytest.approx(best_amplitude(2.0, rho), abs=1e-3)
    torch.testing.assert_close(best_amplitude(2.0, torch.tensor([rho])), torch.tensor([2 * max(0.0, rho)]))
