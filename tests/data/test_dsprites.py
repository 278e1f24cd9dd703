"""dSprites: the drawn pictures are the real ones, and drawing is pure, fast to capture and free between grid points."""

import hashlib
import math
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from disentkit import data
from disentkit.data import dsprites
from disentkit.data.base import ArrayData
from disentkit.data.dsprites import SPACE, DSprites, StoredGrid
from disentkit.data.laws import Grid, Real
from disentkit.errors import UserError

SQUARE, ELLIPSE, HEART = 0, 1, 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, law=None, seed=0):
    return (law or Real()).draw(SPACE, n, generator(seed))


def one(shape, scale=1.0, turn=0.0, x=0.5, y=0.5):
    return torch.tensor([[shape, scale, turn, x, y]])


def differing(a, b):
    return int((a != b).sum())


# ---- the real pictures


@pytest.mark.parametrize("file", ["dsprites_downsampled.npz", "dsprites_subset.npz"])
def test_every_real_picture_is_drawn_to_one_pixel_in_ten_thousand(real_data, file):
    real = data.load("dsprites", source=real_data / "dsprites" / file, verify=False)
    array = real.array if isinstance(real, StoredGrid) else real
    renderer, rows = DSprites(), torch.arange(len(array))
    wrong = torch.zeros(3, dtype=torch.long)
    count = torch.zeros(3, dtype=torch.long)
    for part in rows.split(1024):
        factors = array.factors[part]
        images = array.images[part] != 0
        differ = ((renderer.render(factors) > 0.5) != images).flatten(1).sum(1)
        wrong.index_add_(0, factors[:, 0].long(), differ)
        count.index_add_(0, factors[:, 0].long(), torch.ones_like(differ))
    share = wrong / (count * 64 * 64)
    assert count.min() > 6000
    assert share.max() <= 1e-4, f"wrong pixels per shape: {wrong.tolist()} of {(count * 4096).tolist()}"
    assert wrong.sum() / (count.sum() * 4096) < 2e-5, "the fitted constants reach 1.3e-5"


def test_the_real_full_grid_is_indexed_by_its_factors(real_data):
    real = data.load("dsprites", source=real_data / "dsprites" / "dsprites_downsampled.npz", verify=False)
    assert isinstance(real, StoredGrid)
    assert real.space.sizes == (3, 6, 10, 16, 16) and real.space.names == SPACE.names
    assert real.images.dtype == torch.uint8 and len(real) == real.space.grid_size == 46080
    batch = real.sample(200, generator())
    assert differing(batch["x"], DSprites().render(batch["factors"])) < 60
    fixed = real.sample_fixed(3, 50, generator(), groups=4)["factors"].reshape(4, 50, 5)
    assert (fixed[:, :, 3] == fixed[:, :1, 3]).all() and (fixed[:, :, 4] != fixed[:, :1, 4]).any()


def test_a_real_part_that_is_no_grid_is_an_array(real_data):
    path = real_data / "dsprites" / "dsprites_subset.npz"
    real = data.load("dsprites", source=path, verify=False)
    assert isinstance(real, ArrayData) and real.space == SPACE and len(real) == 20000
    assert set(real.images[::100].unique().tolist()) == {0, 255}
    with pytest.raises(UserError, match="some tuples"):
        data.load("dsprites", source=path, verify=False, law=Grid())
    with pytest.raises(UserError, match="md5"):
        data.load("dsprites", source=path)


def test_small_real_pictures_are_the_drawn_small_pictures(real_data):
    real = data.load("dsprites", source=real_data / "dsprites" / "dsprites_subset.npz", verify=False, size=32)
    batch = real.rows(torch.arange(500))
    away = (batch["x"] - DSprites(32).render(batch["factors"])).abs()
    assert away.mean() < 1e-4 and (away > 0.01).float().mean() < 1e-3


# ---- drawing


@pytest.mark.parametrize("size", [64, 32, 16])
def test_pictures_are_float_in_0_1_and_of_the_right_shape(size):
    images = DSprites(size).render(drawn(50))
    assert images.shape == (50, 1, size, size) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    if size == 64:
        assert set(images.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("size", [32, 16])
def test_small_pictures_are_every_other_pixel_of_the_large_one(size):
    values = torch.cat([drawn(300), drawn(300, Grid())])
    step = 64 // size
    large = DSprites().render(values)[:, :, step // 2 :: step, step // 2 :: step]
    assert torch.allclose(DSprites(size).render(values), large, atol=1e-6)


def test_the_window_cuts_nothing_off():
    """A sprite anywhere in the frame is the sprite in the middle, moved by whole pixels."""
    values = torch.cat([one(shape, 1.0, turn) for shape in range(3) for turn in torch.linspace(0, 6.28, 13).tolist()])
    middle = DSprites().render(values)
    for dx, dy in [(-16, -16), (16, 16), (-16, 16), (5, -9)]:
        moved = values + torch.tensor([0, 0, 0, dx / 32, dy / 32])
        shifted = torch.roll(middle, (dy, dx), (2, 3))
        assert differing(DSprites().render(moved), shifted) <= 4  # rounding of 1/32 steps, at most
    assert middle[:, :, [0, -1]].sum() == 0 and middle[..., [0, -1]].sum() == 0


def test_areas_are_those_of_the_shapes():
    values = {shape: drawn(400) for shape in range(3)}
    exact = {SQUARE: 19.2**2, ELLIPSE: math.pi * 12.763 * 7.2155, HEART: 180 * math.pi * 9.595 / 16 * 0.662}
    for shape, v in values.items():
        v[:, 0], v[:, 1] = shape, 1.0
        assert abs(float(DSprites().render(v).sum() / 400) / exact[shape] - 1) < 0.005


def test_drawing_is_pure():
    values = drawn(64)
    before, state = values.clone(), torch.random.get_rng_state()
    first, second = DSprites().render(values), DSprites().render(values)
    assert torch.equal(first, second) and torch.equal(values, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(DSprites().render(values[10:11]), first[10:11])
    assert DSprites().render(values[:0]).shape == (0, 1, 64, 64)


def test_grid_indices_and_grid_values_draw_the_same():
    idx = SPACE.tuple_of(torch.arange(0, SPACE.grid_size, 9973))
    values = SPACE.from_grid(idx)
    assert torch.equal(SPACE.to_grid(values), idx) and SPACE.grid_size == 737280
    again = SPACE.from_grid(SPACE.to_grid(values + 1e-4))
    assert differing(DSprites().render(values), DSprites().render(again)) == 0


@pytest.mark.parametrize("factor", ["scale", "orientation", "x", "y"])
def test_values_between_grid_points_change_the_picture(factor):
    k, renderer = SPACE.index(factor), DSprites()
    grid = SPACE[factor].values
    low, high = one(HEART, 0.8, 1.0, 0.3, 0.6).repeat(2, 1), grid[len(grid) // 2 : len(grid) // 2 + 2]
    low[:, k] = torch.tensor(high)
    between = low[:1].clone()
    between[:, k] = (high[0] + high[1]) / 2
    a, b = renderer.render(low)
    mid = renderer.render(between)[0]
    assert differing(mid, a) > 3 and differing(mid, b) > 3
    assert max(differing(mid, a), differing(mid, b)) < differing(a, b) + 4


def test_symmetries():
    draw, quarter = DSprites().render, math.pi / 2
    for turn in (0.0, 0.3, 1.1):
        square = draw(one(SQUARE, 0.9, turn, 0.31, 0.62))
        assert differing(square, draw(one(SQUARE, 0.9, turn + quarter, 0.31, 0.62))) <= 2
        ellipse = draw(one(ELLIPSE, 0.9, turn, 0.31, 0.62))
        assert differing(ellipse, draw(one(ELLIPSE, 0.9, turn + 2 * quarter, 0.31, 0.62))) <= 2
        assert differing(ellipse, draw(one(ELLIPSE, 0.9, turn + quarter, 0.31, 0.62))) > 60
        heart = draw(one(HEART, 0.9, turn, 0.31, 0.62))
        assert differing(heart, draw(one(HEART, 0.9, turn + 2 * quarter, 0.31, 0.62))) > 60
    upright = draw(one(HEART))  # at x = y = 0.5 the axis lies between two pixels
    assert torch.equal(upright, upright.flip(3)) and not torch.equal(upright, upright.flip(2))
    rows = upright[0, 0].sum(1).nonzero()[:, 0]
    assert upright[0, 0, rows[-1]].sum() <= 2, "the tip points down"
    wide = draw(one(ELLIPSE))[0, 0]
    assert (wide.sum(0) > 0).sum() > (wide.sum(1) > 0).sum() + 8, "the long axis lies flat at orientation 0"


def test_orientation_0_and_2_pi_are_one_picture():
    zero = drawn(300, Grid())
    zero[:, 2] = 0
    full = zero.clone()
    full[:, 2] = SPACE["orientation"].high
    assert torch.equal(DSprites().render(zero), DSprites().render(full))


def test_turning_is_counter_clockwise():
    heart = DSprites().render(one(HEART, 1.0, math.pi / 2))[0, 0]
    columns = heart.sum(0).nonzero()[:, 0]
    assert heart[:, columns[-1]].sum() <= 2, "the tip, down at 0, points right after a quarter turn"


def test_values_out_of_range_are_drawn_at_the_end_of_the_range():
    far = DSprites().render(torch.tensor([[2.0, 3.0, 20.0, -4.0, 9.0]]))
    assert torch.equal(far, DSprites().render(torch.tensor([[2.0, 1.0, 20.0, 0.0, 1.0]]))) and far.sum() > 100
    with pytest.raises(ValueError, match="scale"):
        SPACE.check([[2.0, 3.0, 0.0, 0.0, 0.0]])


class NoHostReads(TorchDispatchMode):
    """Raises where a tensor's value, or a shape that depends on one, is read back, as `.item()` and masks do."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "aten.equal.")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = "aten.index" in str(func) and any(
            i is not None and i.dtype == torch.bool for i in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        if masked or any(word in str(func) for word in self.READS):
            raise AssertionError(f"{func} reads back to the host")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("read", [lambda x: x[x > 0], lambda x: x.sum().item(), lambda x: bool(x.max() > 0)])
def test_the_guard_against_host_reads_works(read):
    with NoHostReads(), pytest.raises(AssertionError, match="host"):
        read(torch.rand(3))


@pytest.mark.parametrize("size", [64, 16])
def test_nothing_is_read_back_to_the_host(size):
    with NoHostReads():
        batch = DSprites(size).sample(8, generator())
    assert batch["x"].shape == (8, 1, size, size)
    assert DSprites(size).render(torch.empty(8, 5, device="meta")).shape == (8, 1, size, size)


def test_as_data_and_as_model():
    renderer = data.load("dsprites", size=32)
    batch = renderer.sample(20, generator(3))
    assert torch.equal(batch["x"], renderer.sample(20, generator(3))["x"])
    assert not torch.equal(batch["x"], renderer.sample(20, generator(4))["x"])
    assert torch.equal(renderer.decode(renderer.code_of(batch["factors"])), batch["x"])
    assert renderer.with_law(Real()).fingerprint() != renderer.fingerprint() != DSprites(64).fingerprint()
    # On the grid every value is a grid value, under another law it is not.
    snapped = SPACE.from_grid(SPACE.to_grid(batch["factors"]))
    assert torch.equal(snapped, batch["factors"])
    real = data.load("dsprites", law=Real()).sample(20, generator())["factors"]
    assert not torch.equal(SPACE.from_grid(SPACE.to_grid(real)), real)


def test_wrong_size():
    for options in ({"size": 48}, {"size": 63, "source": "nowhere.npz"}):
        with pytest.raises(UserError, match="64, 32, 16 pixels, not"):
            data.load("dsprites", **options)


# ---- the file


def write(path, index, **other):
    """A small file in the official form: the colour column, classes, and a pickled entry that must stay untouched."""
    values = SPACE.from_grid(index).double().numpy()
    values[:, 0] += 1
    entries = {
        "imgs": DSprites().render(SPACE.from_grid(index))[:, 0].to(torch.uint8).numpy(),
        "latents_values": np.c_[np.ones(len(index)), values],
        "latents_classes": np.c_[np.zeros(len(index), int), index.numpy()],
        "metadata": np.array({"title": "pickled"}, dtype=object),
    }
    np.savez_compressed(path, **{**entries, **other})
    return path


@pytest.fixture
def grid_index():
    """A grid of 3 x 1 x 2 x 2 x 1 tuples of dSprites."""
    pick = [torch.tensor(p) for p in ([0, 1, 2], [3], [0, 5], [7, 31], [16])]
    return torch.cartesian_prod(*pick)


def test_a_file_in_the_official_form_is_read(tmp_path, monkeypatch, grid_index):
    path = write(tmp_path / dsprites.FILE, grid_index)
    monkeypatch.setattr(dsprites, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    read = data.load("dsprites", source=tmp_path)  # the folder that holds it will do
    assert isinstance(read, StoredGrid) and read.space.sizes == (3, 1, 2, 2, 1)
    assert torch.equal(read.array.factors[:, 1:], SPACE.from_grid(grid_index)[:, 1:])
    assert torch.equal(read.render(read.array.factors), DSprites().render(read.array.factors))
    assert torch.equal(read.render(read.array.factors + 0.001), read.render(read.array.factors))
    real = read.with_law(Real()).sample(30, generator())
    assert torch.equal(read.render(real["factors"]), real["x"])
    assert torch.equal(read.space.from_grid(read.space.to_grid(real["factors"])), real["factors"])
    assert read.to("cpu").fingerprint() == read.fingerprint() != read.with_law(Real()).fingerprint()
    shuffled = write(tmp_path / "shuffled.npz", grid_index.flip(0))
    assert isinstance(data.load("dsprites", source=shuffled, verify=False), ArrayData)


def test_broken_files_are_one_clear_line(tmp_path, grid_index):
    whole = write(tmp_path / "whole.npz", grid_index)
    torn = tmp_path / "torn.npz"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    flipped = tmp_path / "flipped.npz"
    flipped.write_bytes(whole.read_bytes()[:200] + b"\xff" * 40 + whole.read_bytes()[240:])
    text = tmp_path / "text.npz"
    text.write_text("<html>not found</html>")
    array = tmp_path / "array.npz"
    with array.open("wb") as file:
        np.save(file, np.zeros(3))
    bare = tmp_path / "bare.npz"
    np.savez(bare, pictures=np.zeros(3))
    wrong = torch.zeros(12, 5).double().numpy()
    cases = {
        tmp_path / "missing.npz": "no file .*disentkit data fetch dsprites",
        torn: "download it again",
        flipped: "download it again",
        text: "download it again",
        array: "download it again",
        bare: "imgs.*download it again",
        write(tmp_path / "float.npz", grid_index, imgs=np.zeros((12, 64, 64))): "not dSprites' shapes",
        write(tmp_path / "few.npz", grid_index, imgs=np.zeros((11, 64, 64), np.uint8)): "not dSprites' shapes",
        write(tmp_path / "bright.npz", grid_index, imgs=np.full((12, 64, 64), 255, np.uint8)): "0 and 1 only",
        write(tmp_path / "other.npz", grid_index, latents_values=wrong): "shape -1, which dSprites has not",
        write(tmp_path / "nan.npz", grid_index, latents_values=wrong + np.nan): "shape nan, which",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            data.load("dsprites", source=path, verify=False)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="md5"):
        data.load("dsprites", source=torn)


def test_random_damage_is_never_another_error(tmp_path, grid_index):
    whole, path = write(tmp_path / "whole.npz", grid_index).read_bytes(), tmp_path / "damaged.npz"
    rng, refused = np.random.default_rng(0), 0
    for i in range(200):
        damaged = bytearray(whole)
        if i % 2:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            damaged[-rng.integers(1, 400)] = rng.integers(256)  # the list of entries at the end of a zip file
        path.write_bytes(damaged)
        try:
            data.load("dsprites", source=path, verify=False)
        except UserError:
            refused += 1
    assert refused >= 100


def test_a_pickled_entry_in_place_of_the_images_is_refused(tmp_path, grid_index):
    path = write(tmp_path / "pickled.npz", grid_index, imgs=np.array([{"a": 1}] * 12, dtype=object))
    with pytest.raises(UserError, match="download it again"):
        data.load("dsprites", source=path, verify=False)
