"""Wider views beside the pictures: of the same scenes, with boxes that are the renderer's or a segmenter's."""

import pickle
import sys
import types

import pytest
import torch

from disentkit import data
from disentkit.data import complete, emblems, views
from disentkit.data.base import ArrayData
from disentkit.data.emblems import SPACE, Emblems, Tree
from disentkit.data.laws import Real
from disentkit.data.scenes import Scenes
from disentkit.data.views import Views, box_overlap, boxes_around, boxes_iou, check_boxes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Saturation:
    """Stands in for a segmenter: finds strong colours, which only objects have."""

    def __init__(self, finds=True):
        self.finds, self.seen = finds, []

    def mask(self, x):
        self.seen.append(x)
        strong = (x.amax(1, keepdim=True) - x.amin(1, keepdim=True) > 0.35).float()
        return strong if self.finds else 0 * strong


@pytest.fixture
def segmenters(monkeypatch):
    """Which data a segmenter was asked for; none is trained."""
    asked = []
    fake = types.ModuleType("disentkit.segmenter")
    fake.segmenter_of = lambda data, **kw: asked.append(data) or Saturation()
    monkeypatch.setitem(sys.modules, "disentkit.segmenter", fake)
    return asked


def test_views_are_of_the_pictures_that_came():
    plain = Emblems(32)
    batch, before = Views(plain).sample(7, generator()), plain.sample(7, generator())
    assert set(batch) == {"x", "factors", "full", "box"}
    assert torch.equal(batch["x"], before["x"]) and torch.equal(batch["factors"], before["factors"])
    rng = generator()
    plain.sample(7, rng)
    full, box = plain.view(batch["factors"], rng)
    assert torch.equal(batch["full"], full) and torch.equal(batch["box"], box)
    rows = Views(plain).sample_fixed(2, 3, generator(), groups=2)
    assert rows["full"].shape == (6, 3, 32, 32) and rows["factors"][:, 2].unique().numel() == 2
    assert (rows["full"][0] - rows["full"][1]).abs().max() > 0.1
    assert set(Views(plain, "box").sample(2, generator())) == {"x", "factors", "box"}


def test_everything_else_is_that_of_the_data():
    plain = Emblems(64, Tree(0.5))
    found = Views(plain)
    assert (found.name, found.space, found.spec, found.law) == (plain.name, plain.space, plain.spec, plain.law)
    assert found.fingerprint() == plain.fingerprint() and repr(found) == f"Views({plain})"
    moved = found.to("meta")
    assert moved.device.type == moved.data.device.type == "meta" and found.data.device.type == "cpu"
    assert torch.equal(
        pickle.loads(pickle.dumps(found)).sample(2, generator())["box"], found.sample(2, generator())["box"]
    )


def test_a_learner_that_reads_views_gets_them():
    found = data.complete(data.load("emblems", size=64), ("x", "full", "box"))
    batch = found.sample(3, generator())
    assert isinstance(found, Views) and batch["full"].shape == (3, 3, 62, 62) and batch["box"].shape == (3, 4)
    assert data.complete(found, ("full", "box")) is found, "they are there already"
    both = data.complete(data.load("emblems", size=32), ("x", "mask", "full", "box"))
    assert {"x", "mask", "full", "box"} <= set(both.sample(2, generator()))
    assert both.to("cpu").sample(2, generator())["full"].shape == (2, 3, 32, 32)


# ---- the wider view


@pytest.mark.parametrize(("size", "side"), [(32, 32), (64, 62), (128, 126)])
def test_views_hold_the_object_within_its_box_and_up_to_its_edges(size, side):
    """Two textures differ in every pixel of the object and in no other."""
    renderer, values = Emblems(size), Tree(0.75).draw(SPACE, 100, generator())
    other = values.clone()
    texture = SPACE.index("texture")
    values[:, texture], other[:, texture] = 0, 12  # red and blue, plain
    full, box = renderer.view(values, generator())
    again, same = renderer.view(other, generator())
    assert renderer.side == side and full.shape == (100, 3, side, side) and full.dtype == torch.float32
    assert torch.equal(box, same) and box.shape == (100, 4) and box.dtype == torch.float32
    assert box.min() >= 0 and box.max() <= side and (box[:, :2] <= box[:, 2:]).all()
    shown = (full - again).abs().amax(1, keepdim=True) > 0.08
    place = torch.arange(side) + 0.5
    x, y = place[None, None, None, :], place[None, None, :, None]
    x1, y1, x2, y2 = box.T[:, :, None, None, None]
    near = (x > x1 - 1) & (x < x2 + 1) & (y > y1 - 1) & (y < y2 + 1)
    assert not (shown & ~near).any(), "nothing of the object lies outside its box"
    cut = (box == 0) | (box == side)
    assert 0.2 < cut.any(1).float().mean() < 0.8, "boxes are sometimes cut"
    whole = ~cut.any(1)
    found = boxes_around(shown[whole])
    assert (found - box[whole]).abs().max() < 2 and (found - box[whole]).abs().mean() < 0.6


def test_a_view_is_the_same_scene_at_another_scale():
    """With as many pixels per object view its middle is the object view; nothing is drawn differently."""
    values = Real().draw(SPACE, 30, generator())
    renderer = Emblems(32)
    tables = renderer._pieces(values, 32)[0]
    near = emblems._draw(values, emblems._Frame(30), tables)
    wide = emblems._draw(values, emblems._Frame(36, torch.full((30, 2), -0.1), emblems.VIEW), tables)
    assert torch.allclose(wide[:, :, 3:-3, 3:-3], near, atol=1e-4)
    assert renderer.view(values[:0], generator())[1].shape == (0, 4)


def test_windows_lie_up_to_a_quarter_aside():
    places = Emblems(64).places(4000, generator())
    middle = places + emblems.VIEW / 2 - 0.5
    assert middle.abs().max() <= 0.25 * emblems.VIEW and middle.abs().amax(0).min() > 0.29
    assert middle.mean(0).abs().max() < 0.01 and abs(float(torch.corrcoef(middle.T)[0, 1])) < 0.05


def test_a_box_is_empty_where_the_object_is_not_in_the_view():
    full, box = Emblems(64).window(
        Real().draw(SPACE, 1, generator()).repeat(3, 1), torch.tensor([[1.5, 0.0], [-0.1, -3.0], [-0.1, -0.1]]), 62
    )
    sides = box[:, 2:] - box[:, :2]
    assert (sides[0, 0], sides[1, 1]) == (0, 0) and sides[2].min() > 10
    assert (full[0] - full[2]).abs().max() > 0.3


# ---- boxes of a segmenter


@pytest.mark.parametrize("size", [32, 64])
def test_a_segmenters_boxes_are_around_what_it_finds_in_the_same_view(size, segmenters):
    exact, found = (Views(data.load("emblems", size=size, few=True, boxes=b)) for b in ("exact", "segmenter"))
    assert segmenters == [], "none is opened before it is needed"
    a, b = exact.sample(60, generator()), found.sample(60, generator())
    found.sample(2, generator())
    assert len(segmenters) == 1 and segmenters[0].law == Real() and segmenters[0].name == "emblems_few"
    assert torch.equal(a["full"], b["full"]) and b["box"].dtype == torch.float32
    check_boxes(b["box"], exact.drawer.side)
    assert 0.7 < box_overlap(a["box"], b["box"]).mean() < 1 and not torch.equal(a["box"], b["box"])
    assert found._segmenter.seen[0].shape == (60, 3, size, size)
    assert exact.fingerprint() != found.fingerprint(), "a run that is resumed must meet the boxes that it started with"
    assert pickle.loads(pickle.dumps(exact)).boxes == "exact" and Views(found.drawer, "full").sample(2, generator())


def test_the_loss_by_a_segmenter_is_an_overlap(segmenters):
    renderer = Emblems(64, few=True)
    share = boxes_iou(renderer, 100, generator())
    assert 0.7 < share < 1 and share == boxes_iou(renderer, 100, generator())


def test_a_segmenter_that_finds_nothing_gives_empty_boxes():
    found = Views(data.load("emblems", size=32, boxes="segmenter"))
    found._segmenter = Saturation(finds=False)
    assert torch.equal(found.sample(3, generator())["box"], torch.zeros(3, 4))


# ---- boxes


def test_boxes_around_masks():
    """Compared with every true pixel looked at."""
    masks = torch.rand(30, 1, 5, 9, generator=generator()) > 0.93
    masks[0] = False
    found = boxes_around(masks)
    for mask, box in zip(masks[:, 0], found.tolist(), strict=True):
        places = mask.nonzero()
        wanted = [0, 0, 0, 0]
        if len(places):
            (y1, x1), (y2, x2) = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
            wanted = [x1, y1, x2, y2]
        assert box == wanted
    assert boxes_around(torch.ones(1, 1, 4, 6, dtype=torch.bool)).tolist() == [[0, 0, 6, 4]]


def test_overlap_of_boxes():
    """Compared with counted cells."""
    corners = torch.randint(0, 12, (200, 2, 2, 2), generator=generator())
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1).float()  # (200, 2, 4)
    place = torch.arange(12) + 0.5
    x, y = place[None, None, None, :], place[None, None, :, None]
    x1, y1, x2, y2 = boxes.permute(2, 0, 1)[..., None, None]
    cells = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    shared, union = cells.all(1).sum((1, 2)), cells.any(1).sum((1, 2))
    wanted = torch.where(union > 0, shared / union.clamp(min=1), 1.0)
    assert torch.allclose(box_overlap(boxes[:, 0], boxes[:, 1]), wanted)
    assert torch.equal(box_overlap(boxes[:, 0], boxes[:, 0]), torch.ones(200))
    far = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[5.0, 5, 9, 9]])
    assert float(box_overlap(*far)) == 0


def test_boxes_outside_the_picture_are_named():
    good = torch.tensor([[0, 0, 62, 62], [3, 4, 3, 9], [1.5, 2, 60.25, 8]])
    assert torch.equal(check_boxes(good, 62), good) and check_boxes(good[:0], 62).shape == (0, 4)
    for bad, why in (
        ([-1, 0, 5, 5], "does not lie within 0 ... 62"), ([0, 0, 63, 5], "does not lie within"),
        ([0, float("nan"), 3, 5], "does not lie within"), ([9, 0, 3, 5], "ends before it starts"),
        ([0, 9, 3, 5], "ends before it starts"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"box 1, \(.*\), {why}"):
            check_boxes(torch.tensor([[0.0, 0, 1, 1], bad, [-9, 0, 1, 1]]), 62)
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\), each x1, y1, x2, y2, not \(4,\)"):
        check_boxes(torch.zeros(4), 62)
    for other in (None, "boxes", [[1, 2, 3, 4], [1]]):
        with pytest.raises(ValueError, match=r"boxes must be \(n, 4\), each x1, y1, x2, y2, not "):
            check_boxes(other, 62)


def test_boxes_of_somebodys_own_are_checked_before_a_training():
    class Own(ArrayData):
        def sample(self, n, rng):
            return super().sample(n, rng) | {"full": torch.rand(n, 3, 32, 32), "box": torch.tensor([[0.0, 0, 40, 9]])}

    with pytest.raises(ValueError, match="box 0, \\(0, 0, 40, 9\\), does not lie within 0 ... 32"):
        complete(Own(torch.rand(4, 3, 32, 32)), ("x", "full", "box"))


def test_bad_input():
    with pytest.raises(ValueError, match="'scenes' has no boxes .* background stage of FineGAN needs them: 'emblems'"):
        data.complete(Scenes(32), ("full", "box"))
    with pytest.raises(ValueError, match="views have no key 'mask'; there are full, box"):
        Views(Emblems(32), ("full", "mask"))
    assert views.KEYS == ("full", "box")
