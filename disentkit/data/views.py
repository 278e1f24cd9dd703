"""Wider views with boxes beside the pictures: what the background stage of FineGAN learns from.

The patch discriminator judges the background alone, so it must know which patches hold nothing of the object. The
papers take that from boxes that come with the photographs; where pictures are drawn, the box is known exactly, and a
segmenter stands in for whoever would have to draw boxes by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from disentkit.data.base import Data

KEYS = ("full", "box")


class Views(Data):
    """A renderer whose batches also hold `full` (n, 3, w, w), the wider view, and `box` (n, 4), the object's box in it.

    data   a Renderer with `view(values (n, K), rng) -> (full, box)`, such as `Emblems`
    reads  the keys to be added, of "full" and "box"

    A box is (x1, y1, x2, y2) in pixels of `full`, 0 <= x1 <= x2 <= w; x1 = x2 or y1 = y2 where the object is not in the
    view. With `data.boxes` "segmenter" it is the box around the pixels that a segmenter of the same pictures, drawn
    with independent factors, calls the object's; that segmenter is opened, or trained, when the first box is drawn.
    Raises ValueError for an unknown key and for data without boxes.
    """

    def __init__(self, data: Data, reads: Sequence[str] = KEYS):
        self.reads = (reads,) if isinstance(reads, str) else tuple(reads)
        if unknown := [key for key in self.reads if key not in KEYS]:
            raise ValueError(f"views have no key '{unknown[0]}'; there are {', '.join(KEYS)}")
        drawer = data
        while not callable(getattr(drawer, "view", None)) and hasattr(drawer, "data"):
            drawer = drawer.data  # another wrapper may lie between
        if not callable(getattr(drawer, "view", None)):
            raise ValueError(
                f"data set '{data.name}' has no boxes of its objects, and the background stage of FineGAN needs them: "
                "'emblems' has them, and 'boxed' reads a folder of your own pictures with boxes"
            )
        self.data, self.drawer = data, drawer
        self.name, self.image_shape, self.space, self.law = data.name, data.image_shape, data.space, data.law
        self.device = data.device
        self._segmenter = None

    def __repr__(self) -> str:
        return f"Views({self.data})"

    def __getstate__(self) -> dict:  # the segmenter is opened again
        return self.__dict__ | {"_segmenter": None}

    def to(self, device) -> Views:
        moved = super().to(device)
        moved.data, moved.drawer = self.data.to(device), self.drawer.to(device)
        moved._segmenter = None  # opened again, there
        return moved

    def fingerprint(self) -> str:
        return self.data.fingerprint() + (" boxes of a segmenter" if self.boxes == "segmenter" else "")

    @property
    def boxes(self) -> str:
        return getattr(self.drawer, "boxes", "exact")

    def sample(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return self._with_view(self.data.sample(n, rng), rng)

    def sample_fixed(self, k: int, n: int, rng: torch.Generator, groups: int = 1) -> dict[str, Tensor]:
        return self._with_view(self.data.sample_fixed(k, n, rng, groups), rng)

    def _with_view(self, batch: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        values = batch["factors"]
        if self.boxes == "segmenter":
            corners = self.drawer.places(len(values), rng)
            full, _ = self.drawer.window(values, corners, self.drawer.side)
            box = self._found(values, corners) if "box" in self.reads else None
        else:
            full, box = self.drawer.view(values, rng)
        made = {"full": full, "box": box}
        return {**batch, **{key: made[key] for key in self.reads}}

    def _found(self, values: Tensor, corners: Tensor) -> Tensor:
        """Boxes (n, 4) that the segmenter finds. It reads pictures of the object view's size, so the wider view is
        drawn again at that size, and its boxes are scaled."""
        if self._segmenter is None:
            # Here, since a segmenter needs all of the kit, and the data must not need a segmenter.
            from disentkit.segmenter import segmenter_of

            found = segmenter_of(self.drawer.independent())
            self._segmenter = found if self.device.type == "cpu" else found.to(self.device)
        size = self.image_shape[-1]
        wide, _ = self.drawer.window(values, corners, size)
        return boxes_around(self._segmenter.mask(wide) > 0.5).to(values.device) * (self.drawer.side / size)


def boxes_around(masks: Tensor) -> Tensor:
    """Boxes (n, 4) float32 around the true pixels of masks (n, 1, h, w); all 0 where there is none."""
    ends = []
    for axis in (2, 1):  # columns, then rows
        there = masks[:, 0].any(3 - axis)  # (n, w) or (n, h)
        place = torch.arange(there.shape[1], device=masks.device)
        low = torch.where(there, place, there.shape[1]).amin(1)
        high = torch.where(there, place + 1, 0).amax(1)
        ends.append(torch.stack([low, high]) * (high > 0))
    (x1, x2), (y1, y2) = ends
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def box_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (n,) of boxes a and b (n, 4); 1 where both are empty."""
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    shared = sides.prod(1)
    union = sum((box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (a, b)) - shared
    return torch.where(union > 0, shared / union.clamp(min=1e-12), 1.0)


def boxes_iou(data: Data, n: int, rng: torch.Generator) -> float:
    """The mean overlap (`box_overlap`) of a segmenter's boxes with the true ones, on n drawn views of a renderer."""
    views = Views(data)
    values = data.law.draw(data.space, n, rng)
    corners = data.places(n, rng)
    true = data.window(values, corners, data.side)[1]
    return float(box_overlap(views._found(values, corners), true).mean())


def check_boxes(box: Tensor, side: float) -> Tensor:
    """Boxes (n, 4) as float32; raises ValueError that names the first one outside a picture of so many pixels, or with
    x1 > x2 or y1 > y2."""
    try:
        box = torch.as_tensor(box, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"boxes must be (n, 4), each x1, y1, x2, y2, not {str(box)[:80]}") from None
    if box.ndim != 2 or box.shape[1] != 4:
        raise ValueError(f"boxes must be (n, 4), each x1, y1, x2, y2, not {tuple(box.shape)}")
    inside = ((box >= 0) & (box <= side)).all(1)  # NaN lies nowhere
    turned = (box[:, :2] > box[:, 2:]).any(1)
    bad = ~inside | turned
    if bad.any():
        i = int(bad.nonzero()[0])
        shown = ", ".join(f"{v:g}" for v in box[i].tolist())
        why = f"does not lie within 0 ... {side:g}" if not inside[i] else "ends before it starts"
        raise ValueError(f"box {i}, ({shown}), {why}: a box is x1, y1, x2, y2 in pixels, x1 <= x2 and y1 <= y2")
    return box
