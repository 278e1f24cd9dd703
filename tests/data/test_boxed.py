"""Pictures with boxes: four layouts of the same photographs, both views, their boxes, and what is refused."""

import csv
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from disentkit import data
from disentkit.data import boxed
from disentkit.errors import UserError
from disentkit.nets import finegan

BREEDS = ("Abyssinian", "beagle", "pug")
EACH = 4  # pictures of a breed; the last of them is for testing


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the same photographs in the four layouts


def pets(folder):
    """Rows of a few photographs: path, breed, box x0, y0, x1, y1 of the body, whether for training."""
    with open(folder / "oxford_pets_sample" / "boxes.csv", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    found = []
    for breed in BREEDS:
        for k, row in enumerate([row for row in rows if row["breed"] == breed][:EACH]):
            box = [int(row[f"body_{end}"]) for end in ("x0", "y0", "x1", "y1")]
            found.append((folder / "oxford_pets_sample" / row["file"], breed, box, k < EACH - 1))
    return found


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def write_cub(folder, rows):
    lists = {name: [] for name in ("images", "bounding_boxes", "image_class_labels", "train_test_split", "classes")}
    for i, (file, breed, (x0, y0, x1, y1), train) in enumerate(rows, 1):
        c = BREEDS.index(breed) + 1
        link(folder / "images" / f"{c:03}.{breed}" / file.name, file)
        lists["images"].append(f"{i} {c:03}.{breed}/{file.name}")
        lists["bounding_boxes"].append(f"{i} {x0}.0 {y0}.0 {x1 - x0}.0 {y1 - y0}.0")
        lists["image_class_labels"].append(f"{i} {c}")
        lists["train_test_split"].append(f"{i} {int(train)}")
    lists["classes"] = [f"{c} {c:03}.{breed}" for c, breed in enumerate(BREEDS, 1)]
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def cells(words):
    column = np.empty((len(words), 1), object)
    column[:, 0] = words
    return column


def write_dogs(folder, rows):
    for file, breed, box, _ in rows:
        link(folder / "Images" / breed / file.name, file)
        note = folder / "Annotation" / breed / file.stem
        note.parent.mkdir(parents=True, exist_ok=True)
        # A smaller object comes first: the largest one counts.
        objects = [(0, 0, 3, 3), box]
        ends = ("xmin", "ymin", "xmax", "ymax")
        told = ["".join(f"<{end}>{v}</{end}>" for end, v in zip(ends, each, strict=True)) for each in objects]
        inner = "".join(f"<object><name>dog</name><bndbox>{each}</bndbox></object>" for each in told)
        note.write_text(f"<annotation><folder>{breed}</folder>{inner}</annotation>")
    for part, wanted in (("train", True), ("test", False)):
        names = [f"{breed}/{file.name}" for file, breed, _, train in rows if train is wanted]
        scipy.io.savemat(folder / f"{part}_list.mat", {"file_list": cells(names)})


def annotations(rows, key, name_of, **more):
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", key, *more)
    found = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, (file, breed, box, train) in enumerate(rows):
        extra = [float(train is wanted) for wanted in more.values()]
        found[0, i] = (*map(float, box), float(BREEDS.index(breed) + 1), name_of(file), *extra)
    return found


def write_cars(folder, rows):
    (folder / "devkit").mkdir(parents=True)
    for part, wanted in (("train", True), ("test", False)):
        part_of = [row for row in rows if row[3] is wanted]
        for file, *_ in part_of:
            link(folder / f"cars_{part}" / file.name, file)
        name = f"cars_{part}_annos{'' if wanted else '_withlabels'}.mat"
        scipy.io.savemat(folder / "devkit" / name, {"annotations": annotations(part_of, "fname", lambda f: f.name)})
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": cells(list(BREEDS)).T})


def write_one_mat(folder, rows):
    for file, *_ in rows:
        link(folder / "car_ims" / file.name, file)
    told = annotations(rows, "relative_im_path", lambda f: f"car_ims/{f.name}", test=False)
    scipy.io.savemat(folder / "cars_annos.mat", {"annotations": told, "class_names": cells(list(BREEDS)).T})


def write_corners(folder, rows):
    lines = ["label,file,x0,y0,x1,y1,split"]
    for file, breed, box, train in rows:
        link(folder / "in" / breed / file.name, file)
        lines.append(f"{breed},in/{breed}/{file.name},{','.join(map(str, box))},{'train' if train else 'test'}")
    (folder / "boxes.csv").write_text("\n".join(lines))


def write_sides(folder, rows):
    lines = ["file,x,y,w,h,label,split,remark"]
    for file, breed, (x0, y0, x1, y1), train in rows:
        link(folder / file.name, file)
        lines.append(f"{file.name},{x0},{y0},{x1 - x0},{y1 - y0},{breed},{'train' if train else 'test'},")
    (folder / "boxes.csv").write_text("\n".join(lines))


LAYOUTS = {
    "cub": write_cub,
    "dogs": write_dogs,
    "cars": write_cars,
    "one mat": write_one_mat,
    "corners": write_corners,
    "sides": write_sides,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_photographs_in_every_layout(real_data, tmp_path, layout):
    rows = pets(real_data)
    LAYOUTS[layout](tmp_path, rows)
    for split in ("train", "test", "all"):
        wanted = [row for row in rows if split in ("all", "train" if row[3] else "test")]
        found = data.load("boxed", path=tmp_path, size=32, split=split)
        assert len(found) == len(wanted) and found.note == "" and found.image_shape == (3, 32, 32)
        names = [file.name for file, *_ in wanted]
        assert sorted(f.rpartition("/")[2] for f in found.files) == sorted(names)
        labels = found.space["label"].labels
        assert [label.rpartition(".")[2] for label in labels] == list(BREEDS)
        for i, name in enumerate(f.rpartition("/")[2] for f in found.files):
            file, breed, box, _ = wanted[names.index(name)]
            assert labels[int(found.labels[i])].endswith(breed)
            with Image.open(file) as opened:
                plan = boxed.planned(box, *opened.size, 32)
                picture = opened.convert("RGB").crop(plan.full_region)
                expected = np.asarray(picture.resize(plan.full_sides[::-1], Image.Resampling.LANCZOS))
            start, count = int(found.fulls.start[i]), expected.shape[0] * expected.shape[1]
            assert torch.equal(found.boxes[i], torch.tensor(plan.box))
            kept = found.fulls.pixels[start : start + count].reshape(expected.shape)
            assert np.array_equal(kept, expected)
        batch = found.sample(5, seeded())
        assert batch["x"].shape == (5, 3, 32, 32) and batch["factors"].shape == (5, 1)
        assert data.complete(found, ("x", "full", "box")) is found


# ---- a picture whose pixels say where they are


SIDE = 38  # the shorter side of both views at 32 pixels, so that nothing is resized


def write_map(folder, box, size=(60, SIDE), name="map.png", mode="w"):
    """Red says the column, green the row, and blue is 255 in the box and 0 elsewhere; one line of boxes.csv."""
    wide, high = size
    pixels = np.zeros((high, wide, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(wide), np.arange(high)[:, None]
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1, 2] = 255
    Image.fromarray(pixels).save(folder / name)
    with (folder / "boxes.csv").open(mode) as file:
        file.write(("" if mode == "a" else "file,x,y,w,h\n") + f"{name},{x0},{y0},{x1 - x0},{y1 - y0}\n")
    return folder


def read(view):
    """Columns (n, w), rows (n, w) and the white part (n, w, w) of views of `write_map`."""
    levels = (view * 255).round().long()
    assert (levels[:, 0] == levels[:, 0, :1]).all() and (levels[:, 1] == levels[:, 1, :, :1]).all()
    return levels[:, 0, 0], levels[:, 1, :, 0], levels[:, 2] == 255


@pytest.fixture(params=[(20, 5, 48, 33), (0, 0, 28, 20), (40, 3, 60, 31)])
def mapped(request, tmp_path):
    """A map with a box in the middle, in a corner, at an edge, and the part its object view is cut from."""
    x0, y0, x1, y1 = request.param
    cx, cy, r = (x0 + x1) // 2, (y0 + y1) // 2, 21  # 0.75 * 28
    columns = [c for c in range(60) if cx - r <= c < cx + r]
    rows = [c for c in range(SIDE) if cy - r <= c < cy + r]
    return request.param, columns, rows, data.load("boxed", path=write_map(tmp_path, request.param), size=32)


def test_crops_are_those_of_the_whole_picture(mapped):
    (x0, y0, x1, y1), _, _, found = mapped
    batch = found.sample(400, seeded())
    columns, rows, white = read(batch["full"])
    corners = set()
    for i, box in enumerate(batch["box"].tolist()):
        across = columns[i].tolist()
        flipped = across[0] > across[-1]
        left, upper = min(across), int(rows[i, 0])
        corners.add((left, upper))
        expected = list(range(left, left + 32))
        assert across == (expected[::-1] if flipped else expected)
        assert rows[i].tolist() == list(range(upper, upper + 32))
        inside = [k for k, c in enumerate(across) if x0 <= c < x1], [k for k in range(32) if y0 <= upper + k < y1]
        for k, (low, high) in enumerate(((box[0], box[2]), (box[1], box[3]))):
            assert [j for j in range(32) if low <= j < high] == inside[k]
            assert 0 <= low <= high <= 32 and high - low == len(inside[k])
        assert int(white[i].sum()) == len(inside[0]) * len(inside[1])
        assert white[i][int(box[1]) : int(box[3]), int(box[0]) : int(box[2])].all()
    assert {left for left, _ in corners} == set(range(60 - 32 + 1)) and {up for _, up in corners} == set(range(7))


def test_the_object_view_is_a_window_of_one_and_a_half_boxes(mapped):
    _, columns, rows, found = mapped
    scale = min(len(columns), len(rows)) / SIDE  # of the window's pixels to those that are kept
    across, down, _ = read_loosely(found.sample(400, seeded())["x"])
    for seen, part in ((across, columns), (down, rows)):
        assert abs(int(seen.min()) - part[0]) <= 1 and abs(int(seen.max()) - part[-1]) <= 1
    steps = (across[:, -1] - across[:, 0]).abs().float() / 31
    assert (steps - scale).abs().max() < 0.06


def read_loosely(view):
    """As `read`, of views that were resized: the middle row and column stand for all."""
    levels = (view * 255).round().long()
    return levels[:, 0, 16], levels[:, 1, :, 16], levels[:, 2] > 127


def test_flips_are_tossed_for_each_view_by_itself(tmp_path):
    found = data.load("boxed", path=write_map(tmp_path, (16, 5, 44, 33)), size=32)
    batch = found.sample(800, seeded())
    seen = [(v[:, 0, 0, 0] > v[:, 0, 0, -1]).tolist() for v in (batch["x"], batch["full"])]
    counts = Counter(zip(*seen, strict=True))
    assert len(counts) == 4 and all(150 < count < 250 for count in counts.values())
    steady = data.load("boxed", path=tmp_path, size=32, flip=False)
    batch = steady.sample(100, seeded())
    for view in (batch["x"], batch["full"]):
        assert (view[:, 0, 0, 0] < view[:, 0, 0, -1]).all()
    assert steady.fingerprint() != found.fingerprint()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_white_rectangle_lies_in_its_box_after_resizing(tmp_path, size):
    write_map(tmp_path, (60, 30, 150, 95), (240, 170))
    found = data.load("boxed", path=tmp_path, size=size)
    batch = found.sample(50, seeded())
    w = found.view
    assert batch["full"].shape == (50, 3, w, w) and w == finegan.patches(size).side
    assert batch["x"].shape == (50, 3, size, size)
    high = w * 76 // 64
    wide = high * 240 // 170
    for white, (x1, y1, x2, y2) in zip(batch["full"][:, 2] > 0.5, batch["box"].tolist(), strict=True):
        down, across = white.any(1).nonzero()[:, 0], white.any(0).nonzero()[:, 0]
        for part, first, last in ((across, x1, x2), (down, y1, y2)):
            assert abs(int(part[0]) - first) <= 0.51 and abs(int(part[-1]) + 1 - last) <= 0.51
    whole = (batch["box"][:, 2] < w) & (batch["box"][:, 0] > 0) & (batch["box"][:, 1] > 0) & (batch["box"][:, 3] < w)
    sides = (batch["box"][:, 2:] - batch["box"][:, :2])[whole]
    assert len(sides) and torch.allclose(sides, torch.tensor([90 / 240 * wide, 65 / 170 * high]))


def test_plans_against_counting_pixels():
    draw = np.random.default_rng(0)
    for _ in range(300):
        wide, high = (int(v) for v in draw.integers(5, 300, 2))
        x0, y0 = draw.uniform(0, wide - 1), draw.uniform(0, high - 1)
        x1, y1 = draw.uniform(x0 + 0.01, wide), draw.uniform(y0 + 0.01, high)
        size = int(draw.choice([32, 64, 128]))
        plan = boxed.planned((x0, y0, x1, y1), wide, high, size)
        r = max(1, int(0.75 * max(x1 - x0, y1 - y0)))
        columns = [c for c in range(wide) if abs(c + 0.5 - int((x0 + x1) / 2)) < r]
        rows = [c for c in range(high) if abs(c + 0.5 - int((y0 + y1) / 2)) < r]
        left, upper, right, lower = plan.object_region
        if max(len(columns), len(rows)) <= 2 * min(len(columns), len(rows)):
            assert (left, upper, right, lower) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert columns[0] <= left < right <= columns[-1] + 1 and rows[0] <= upper < lower <= rows[-1] + 1
        for region, sides, short in (
            (plan.object_region, plan.object_sides, {32: 38, 64: 76, 128: 152}[size]),
            (plan.full_region, plan.full_sides, {32: 38, 64: 73, 128: 149}[size]),
        ):
            assert min(sides) == short and max(sides) <= 2 * short
            least = min(region[2] - region[0], region[3] - region[1])
            for k, side in enumerate(sides):
                assert abs(side - (region[3 - k] - region[1 - k]) / least * short) < 1
        x1_, y1_, x2_, y2_ = plan.box
        assert 0 <= x1_ <= x2_ <= plan.full_sides[1] and 0 <= y1_ <= y2_ <= plan.full_sides[0]
        if max(wide, high) <= 2 * min(wide, high):  # nothing was cut off
            assert plan.full_region == (0, 0, wide, high)
            assert x1_ / plan.full_sides[1] == pytest.approx(x0 / wide, abs=1e-9)
            assert y2_ / plan.full_sides[0] == pytest.approx(y1 / high, abs=1e-9)


def test_memory_is_bounded_for_long_pictures(tmp_path):
    write_map(tmp_path, (200, 5, 230, 30), (255, 40))
    write_map(tmp_path, (5, 100, 30, 140), (40, 255), "tall.png", "a")
    found = data.load("boxed", path=tmp_path, size=32)
    assert found.nbytes <= 2 * 2 * 3 * (38 * 76)
    batch = found.sample(200, seeded())
    box = batch["box"]
    assert ((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])).float().mean() > 0.4  # the part around the box was kept
    across, _, _ = read_loosely(batch["full"])
    assert int(across.max()) >= 200


def test_a_crop_may_leave_the_object_out(tmp_path):
    write_map(tmp_path, (0, 0, 4, 4), (76, 38))
    box = data.load("boxed", path=tmp_path, size=32).sample(200, seeded())["box"]
    gone = (box[:, 0] == box[:, 2]) | (box[:, 1] == box[:, 3])
    assert 0.5 < gone.float().mean() < 1 and box.min() >= 0 and box.max() <= 32


# ---- draws


@pytest.fixture
def small(tmp_path):
    """Five maps; two classes of two and three."""
    for i in range(5):
        write_map(tmp_path, (10 + i, 5, 30 + i, 33), name=f"{i}.png", mode="a")
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    lines = ["file,x,y,w,h,label"] + [f"{line},{'ab'[i > 1]}" for i, line in enumerate(lines)]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    return tmp_path


def test_draws_follow_the_generator(small):
    found = data.load("boxed", path=small, size=32)
    a, b, c = found.sample(8, seeded(1)), found.sample(8, seeded(1)), found.sample(8, seeded(2))
    assert list(a) == ["x", "full", "box", "factors"]
    assert all(torch.equal(a[key], b[key]) for key in a) and not any(torch.equal(a[k], c[k]) for k in ("x", "full"))
    for key in a:
        assert a[key].dtype == torch.float32 and a[key].is_contiguous()
    assert found.to("cpu").sample(8, seeded(1))["box"].equal(a["box"])
    assert data.load("boxed", path=small, size=32).fingerprint() == found.fingerprint()


def test_one_class_held_fixed(small):
    found = data.load("boxed", path=small, size=32)
    assert found.space.names == ("label",) and found.space["label"].labels == ("a", "b")
    batch = found.sample_fixed(0, 6, seeded(), groups=20)
    factors = batch["factors"].reshape(20, 6)
    assert (factors == factors[:, :1]).all() and set(factors[:, 0].tolist()) == {0, 1}
    assert batch["x"].shape == (120, 3, 32, 32) and batch["box"].shape == (120, 4)
    with pytest.raises(ValueError, match="no factor 1"):
        found.sample_fixed(1, 2, seeded())
    (small / "boxes.csv").write_text("file,x,y,w,h\n" + "".join(f"{i}.png,10,5,20,28\n" for i in range(5)))
    found = data.load("boxed", path=small, size=32)
    assert found.space is None and list(found.sample(2, seeded())) == ["x", "full", "box"]
    with pytest.raises(ValueError, match="no factors"):
        found.sample_fixed(0, 2, seeded())


def test_most_picks_the_same_pictures_each_time(small):
    first, again = (data.load("boxed", path=small, size=32, most=3) for _ in range(2))
    assert len(first) == 3 and first.files == again.files and first.fingerprint() == again.fingerprint()
    assert len(data.load("boxed", path=small, size=32, most=99)) == 5


def test_the_fingerprint_sees_pictures_boxes_and_classes(small):
    before = {data.load("boxed", path=small, size=32).fingerprint()}
    text = (small / "boxes.csv").read_text()
    for changed in (text.replace("0.png,10,", "0.png,11,"), text.replace("28,a", "28,b", 1)):
        (small / "boxes.csv").write_text(changed)
        before.add(data.load("boxed", path=small, size=32).fingerprint())
    (small / "boxes.csv").write_text(text)
    with Image.open(small / "3.png") as picture:
        pixels = np.array(picture)
    pixels[20, 20, 1] += 60
    Image.fromarray(pixels).save(small / "3.png")
    before.add(data.load("boxed", path=small, size=32).fingerprint())
    assert len(before) == 4


def test_tables_count_in_the_picture_as_it_is_shown(tmp_path):
    picture = np.zeros((80, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turned: 80 wide, 40 high
    Image.fromarray(picture).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\nturned.jpg,50,5,30,30\n")
    found = data.load("boxed", path=tmp_path, size=32)
    assert (int(found.fulls.high[0]), int(found.fulls.wide[0])) == (38, 76)
    cub = tmp_path / "cub"
    link(cub / "images" / "turned.jpg", tmp_path / "turned.jpg")
    (cub / "images.txt").write_text("1 turned.jpg\n")
    (cub / "bounding_boxes.txt").write_text("1 5 50 30 30\n")
    found = data.load("boxed", path=cub, size=32, split="all")
    assert (int(found.fulls.high[0]), int(found.fulls.wide[0])) == (76, 38) and found.space is None


# ---- what is refused


def table(*rows, head="file,x,y,w,h"):
    return "\n".join([head, *rows])


GOOD = ("0.png,10,5,20,28", "1.png,11,5,20,28", "2.png,12,5,20,28", "3.png,13,5,20,28", "4.png,14,5,20,28")
TABLES = {
    "": "must begin with file,x,y,w,h or file,x0,y0,x1,y1, not with ''",
    table(*GOOD, head="name,x,y,w,h"): "must begin with file,x,y,w,h",
    table("0.png,1,2,3"): r"row 2 has not one value for each of file, x, y, w, h",
    table(*GOOD, GOOD[0]): "0.png has two rows",
    table("0.png,1,2,three,4", *GOOD[1:]): "the box of 0.png must be four numbers, not '1 2 three 4'",
    table("0.png,1,2,nan,4", *GOOD[1:]): "the box of 0.png must be four numbers",
    table("0.png,1,2,,4", *GOOD[1:]): "the box of 0.png must be four numbers",
    table(*GOOD[:3]): "no box for 2 of 5 pictures in .*, 3.png the first: the background stage of FineGAN needs a box "
    "per picture; add them to boxes.csv, or leave such pictures out with missing='skip'",
    table(*GOOD[:4], "4.png,,,,"): "no box for 1 of 5 pictures in .*, 4.png the first",
    table(*GOOD[:4], "4.png,10,5,0,20"): "the box of 4.png is empty, 0 wide and 20 high; mend it in boxes.csv",
    table(*GOOD[:4], "4.png,10,5,20,-2"): "the box of 4.png is empty, 20 wide and -2 high",
    table(*GOOD[:4], "4.png,70,5,20,28"): r"= \(70, 5, 90, 33\) of 4.png lies outside its picture of 60x38 pixels",
    table(*GOOD[:4], "4.png,50,5,20,28"): r"= \(50, 5, 70, 33\) of 4.png lies outside",
    table(*GOOD[:4], "4.png,-5,5,20,28"): "of 4.png lies outside its picture of 60x38 pixels; mend it in boxes.csv",
    table(*GOOD[:4], "4.png,60.5,5,0.5,28"): "of 4.png lies outside",
    table(*GOOD, "5.png,1,2,3,4"): r"5.png in .* cannot be read \(it is not there\); put a whole copy there, or take",
    table(*(f"{row}," for row in GOOD), head="file,x,y,w,h,label"): "0.png has no label",
    table(*(f"{row},valid" for row in GOOD), head="file,x,y,w,h,split"): "split of 0.png is train or test, not 'valid'",
    table(*(f"{row},test" for row in GOOD), head="file,x,y,w,h,split"): "no picture of .* belongs to split 'train' "
    r"\(layout 'csv'\); take another split, or name its pictures in the lists",
    "file,x,y,w,h\n\xff": "is no text in UTF-8 .*; save it as UTF-8",
}


def refused(message, **options):
    with pytest.raises(UserError, match=message) as caught:
        data.load("boxed", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", TABLES)
def test_a_wrong_table_is_one_clear_line(small, text):
    (small / "boxes.csv").write_text(text, encoding="latin1")
    refused(TABLES[text], path=small, size=32)


def test_pictures_without_a_usable_box_can_be_left_out(small):
    rows = [GOOD[0], "1.png,11,5,0,28", "2.png,70,5,20,28", "3.png,13,5,20,28"]
    (small / "boxes.csv").write_text(table(*rows))
    found = data.load("boxed", path=small, size=32, missing="skip")
    assert found.files == ["0.png", "3.png"]
    assert found.note == "left out: 1 with no box, 1 with an empty box, 1 with a box outside the picture"
    assert found.note in repr(found)
    (small / "boxes.csv").write_text(table(rows[1]))
    refused("no picture of split 'train' in .* has a box that can be used; left out: 4 with no box, 1", path=small,
            missing="skip")  # fmt: skip


def test_a_folder_without_any_picture_is_said_to_be_one(tmp_path):
    (tmp_path / "boxes.csv").write_text(table())
    refused("no picture of .* belongs to split 'train'", path=tmp_path, size=32)
    refused("no picture of .* belongs to split 'all' .*; it holds no picture", path=tmp_path, size=32, split="all")


def test_a_box_may_reach_a_pixel_beyond_and_is_clipped(small):
    (small / "boxes.csv").write_text(table(*GOOD[:4], "4.png,-1,-0.5,62,39"))
    found = data.load("boxed", path=small, size=32)
    assert found.boxes[4].tolist() == [0, 0, 60, 38]


def test_settings_that_cannot_be(small):
    cases = {
        "`path` names a folder of pictures with boxes; 3 is none": {"path": 3},
        "no folder .*nowhere; unpack CUB-200-2011": {"path": small / "nowhere"},
        "come in sizes 32, 64, 128, not 48": {"path": small, "size": 48},
        "come in sizes 32, 64, 128, not '64'": {"path": small, "size": "64"},
        "come in sizes 32, 64, 128, not 64.0": {"path": small, "size": 64.0},
        r"come in sizes 32, 64, 128, not \[64\]": {"path": small, "size": [64]},
        "no folder ~nobody-of-this-name/x; unpack": {"path": "~nobody-of-this-name/x"},
        "no folder x{80}; unpack": {"path": "x" * 5000},
        "unknown layout 'cubs'. Did you mean 'cub'": {"path": small, "layout": "cubs"},
        "unknown split 'valid'.*train, test, all": {"path": small, "split": "valid"},
        "unknown missing 'leave'": {"path": small, "missing": "leave"},
        "flip is true or false, not 'no'": {"path": small, "flip": "no"},
        "most must be a whole number of 2 or more, not 1": {"path": small, "most": 1},
        "no column split, so split 'test' is empty": {"path": small, "split": "test"},
        "no images.txt in .*; the layout 'cub' has": {"path": small, "layout": "cub"},
        "no Annotation in .*; the layout 'dogs' has": {"path": small, "layout": "dogs"},
        "no cars_train in .*; the layout 'cars' has": {"path": small, "layout": "cars"},
        "data set 'boxed' needs path=": {},
    }
    for message, options in cases.items():
        refused(message, **options)
    with pytest.raises(UserError, match="unpack CUB-200-2011 .*Stanford Cars.*path=..."):
        data.fetch("boxed")


def png_of(wide, high):
    """A PNG that says it has these sides and holds no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(10_000, 5_001), (10_000, 9_500), (60_000, 60_000)])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(small, sides):
    (small / "2.png").write_bytes(png_of(*sides))
    refused("2.png in .* has more than 50 megapixels; shrink it, or take it off the list", path=small)


def test_pictures_that_cannot_be_read_are_named(small):
    whole = (small / "3.png").read_bytes()
    for torn in (whole[:-40], b"<html>", b""):  # the first has a good head
        (small / "3.png").write_bytes(torn)
        refused(r"3.png in .* cannot be read \(.*\); put a whole copy there", path=small, size=32)


def test_a_layout_that_cannot_be_told(tmp_path):
    refused("cannot tell the layout of .*: it holds none of images.txt", path=tmp_path)
    (tmp_path / "boxes.csv").touch()
    (tmp_path / "Annotation").mkdir()
    refused("fits the layouts dogs and csv; say which with layout=...", path=tmp_path)


def spoil(folder, layout, name, content):
    rows = [(folder / f"{i}.png", BREEDS[i % 3], (10, 5, 30, 33), i < 3) for i in range(4)]
    for file, *_ in rows:
        Image.new("RGB", (60, 38)).save(file)
    LAYOUTS[layout](folder / layout, rows)
    path = folder / layout / name
    if content is None:
        path.unlink()
    elif isinstance(content, dict):
        scipy.io.savemat(path, content)
    else:
        path.write_text(content)
    return folder / layout


SPOILT = [
    ("cub", "bounding_boxes.txt", None, "no bounding_boxes.txt in .*; the layout 'cub' has images.txt"),
    ("cub", "bounding_boxes.txt", "1 10 5 20", "bounding_boxes.txt: line 1 is not a number and 4 more: '1 10 5 20'"),
    ("cub", "bounding_boxes.txt", "1 1 1 9 9\n1 1 1 9 9", "line 2 repeats a number"),
    ("cub", "bounding_boxes.txt", "1 10 5 20 28", r"no box for 2 of 3 pictures in .*, images/002.beagle/1.png the fir"),
    ("cub", "bounding_boxes.txt", "1 a b c d", "the box of 001.Abyssinian/0.png must be four numbers"),
    ("cub", "train_test_split.txt", None, "no train_test_split.txt in .*; split='train' needs it, split='all' does"),
    ("cub", "train_test_split.txt", "1 0\n2 0\n3 0\n4 0", "belongs to split 'train'"),
    ("cub", "image_class_labels.txt", "1 1", "image_class_labels.txt has no line for 002.beagle/1.png"),
    ("cub", "images.txt", "1 gone.jpg", r"images/gone.jpg in .* cannot be read \(it is not there\)"),
    ("dogs", "train_list.mat", None, "no train_list.mat in .*; split='train' needs it"),
    ("dogs", "train_list.mat", "text", "train_list.mat is no MATLAB file that can be read"),
    ("dogs", "train_list.mat", {"files": 1.0}, "train_list.mat has no entry 'file_list'"),
    ("dogs", "train_list.mat", {"file_list": [1.0, 2.0]}, "'file_list' is no list of words"),
    ("dogs", "train_list.mat", {"file_list": cells(["pug/9.png"])}, "belongs to split 'train'"),
    ("dogs", "Annotation/beagle/1", None, "no box for 1 of 3 pictures in .*, Images/beagle/1.png .*to Annotation/"),
    ("dogs", "Annotation/beagle/1", "<annotation></annotation>", "no box for 1 of 3 pictures"),
    ("dogs", "Annotation/beagle/1", "<annotation>", "1 is no XML"),
    ("dogs", "Annotation/beagle/1", "<a><object><bndbox><xmin>1</xmin></bndbox></object></a>", "must be four numbers"),
    ("cars", "devkit/cars_train_annos.mat", None, "no devkit/cars_train_annos.mat in"),
    ("cars", "devkit/cars_train_annos.mat", {"annotations": 3.0}, "its annotations have no field fname"),
    ("cars", "devkit/cars_meta.mat", {"class_names": cells(["one"])}, "classes reach from 1 to 3, 1 have names"),
    ("cars", "cars_train/9.png", "a picture that no list names", "no box for 1 of 4 pictures in .*, cars_train/9.png"),
    ("one mat", "cars_annos.mat", "text", "cars_annos.mat is no MATLAB file"),
    ("dogs", "Annotation/beagle/1", '<?xml version="1.0" encoding="none"?><a/>', "no XML .unknown encoding: none"),
    ("dogs", "Annotation/beagle/1", '<?xml version="1.0" encoding="gb2312"?><a/>', "no XML .*; take it away with its"),
]


@pytest.mark.parametrize(("layout", "name", "content", "message"), SPOILT)
def test_files_of_a_layout_that_are_missing_or_wrong(tmp_path, layout, name, content, message):
    refused(message, path=spoil(tmp_path, layout, name, content), size=32)


def test_splits_that_need_no_list(tmp_path):
    for layout, name in (("cub", "train_test_split.txt"), ("dogs", "train_list.mat")):
        path = spoil(tmp_path, layout, name, None)
        assert len(data.load("boxed", path=path, size=32, split="all")) == 4
    path = spoil(tmp_path, "cars", "devkit/cars_meta.mat", None)
    assert data.load("boxed", path=path, size=32).space["label"].labels == ("1", "2", "3")


@pytest.mark.parametrize(("field", "value"), [("class", "Audi"), ("class", np.nan), ("class", []), ("test", [0, 1])])
def test_a_cell_of_cars_that_is_no_whole_number(tmp_path, field, value):
    rows = annotations([(tmp_path / "a.png", BREEDS[0], (1, 1, 9, 9), True)] * 2, "relative_im_path", lambda f: f.name,
                       test=False)  # fmt: skip
    rows[0, 1][field] = np.array(value, float) if isinstance(value, list) else value
    scipy.io.savemat(tmp_path / "cars_annos.mat", {"annotations": rows, "class_names": cells(list(BREEDS)).T})
    refused("cars_annos.mat: the (class|field test) of a.png must be a whole number, not '", path=tmp_path, size=32)


def test_a_class_of_thousands_of_digits_is_a_word(tmp_path):
    path = spoil(tmp_path, "cub", "image_class_labels.txt", "\n".join(f"{i} {'9' * 5000}" for i in range(1, 5)))
    assert data.load("boxed", path=path, size=32).space["label"].labels[-1] == "9" * 5000
