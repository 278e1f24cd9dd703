"""FineGAN's networks: counts, every part against what it is written as, masks, patches and what a logit sees."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from methods.family import draw, rng
from torch import nn

from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.nets import finegan as nets

SIZES = list(nets.TABLES)


def generator(
    size: int = 32, table: str = "small", z: int = 3, parents: int = 2, children: int = 4, wide: float = 0.25
):
    """G with the weights of seed 0 at rest, whose batch norms have seen other pictures."""
    with seeded(0):
        G = nets.Generator((3, size, size), z, parents, children, table, wide)
        for norm in (m for m in G.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    return G.eval()


def codes(n: int = 3, z: int = 3, parents: int = 2, children: int = 4) -> dict[str, torch.Tensor]:
    """z_b, b, z, p, c, all different; b and c soft, which G must take as well."""
    soft = {k: draw(n, children, seed=i).softmax(1) for i, k in enumerate("bc")}
    return {
        "z_b": draw(n, z, seed=2),
        "z": draw(n, z, seed=3),
        "p": F.one_hot(torch.arange(n) % parents).float(),
        **soft,
    }


def millions(*found: nn.Module) -> float:
    return sum(p.numel() for net in found for p in net.parameters()) / 1e6


# ---- sizes


@pytest.mark.parametrize("table, size, counts", [
    ("finegan", 128, {"G_b": 22.5, "G_p": 17.0, "G_c": 0.20, "G": 39.7, "D_b": 0.67, "D_p": 18.4, "D_c": 19.9}),
    ("mixnmatch", 128, {"G_b": 8.16, "G_p": 5.15, "G_c": 0.19, "G": 13.5, "D_b": 0.67, "D_p": 3.0, "D_c": 13.3}),
    ("small", 64, {"G": 0.78}),
    ("small", 32, {"G": 0.21}),
])  # fmt: skip
def test_weights_are_as_many_as_in_the_released_codes(table, size, counts, monkeypatch):
    monkeypatch.setattr(nets, "released", lambda net: net)  # only their shapes matter
    z, parents, children = {128: (100, 20, 200), 64: (16, 5, 20), 32: (8, 4, 8)}[size]
    with torch.device("meta"):
        G = nets.Generator((3, size, size), z, parents, children, table)
        found = {
            "G_b": millions(G.background_trunk, G.background_head),
            "G_p": millions(G.parent_trunk, G.parent_join, G.parent_heads),
            "G_c": millions(G.child_join, G.child_heads),
            "G": millions(G),
            "D_b": millions(nets.PatchDiscriminator(size, table)),
            "D_p": millions(nets.ParentDiscriminator(size, parents, table)),
            "D_c": millions(nets.ChildDiscriminator(size, children, table)),
        }
    assert found["G"] == pytest.approx(found["G_b"] + found["G_p"] + found["G_c"])
    for name, count in counts.items():
        digits = len(str(count).split(".")[1]) if name != "G_c" else 2
        assert round(found[name], digits) == count, name


@pytest.mark.parametrize("table, size", SIZES)
def test_shapes(table, size):
    G, y = generator(size, table, wide=0.1), codes(2)
    made = G(**y)
    channels = nets.table_of(table, size, 0.1).parent[2]
    assert G.feature_shape == (channels, size, size) == made.F.shape[1:]
    for name in ("B", "P_f", "P", "C_f", "C"):
        assert getattr(made, name).shape == (2, 3, size, size) and getattr(made, name).abs().max() <= 1
    assert made.P_m.shape == made.C_m.shape == (2, 1, size, size)
    D_b = nets.PatchDiscriminator(size, table, 0.1)
    assert [r.shape for r in D_b(made.B)] == [(2, 1, 24, 24)] * 2
    assert nets.ParentDiscriminator(size, 5, table, 0.1)(made.P).shape == (2, 5)
    D_c = nets.ChildDiscriminator(size, 6, table, 0.1)
    assert D_c(made.C).shape == (2,) and D_c(made.C, code=True).shape == (2, 6)


def test_tables_and_sizes_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="no table 'small' for pictures of 128 pixels; there are 'finegan' at 128, "):
        nets.table_of("small", 128)
    with pytest.raises(ValueError, match="2 convolutions leave 16x16 of 64 pixels, not 4x4"):
        nets._trunk((4, 8, 8), 64, 3)
    assert nets.table_of("small", 64, 0.5).background == (64, 32, 16, 16, 8)
    assert nets.table_of("small", 64, 0.5).patch == ((16, 4, 2), (32, 3, 1), (32, 3, 1))
    assert nets.table_of("small", 64, 0.5).parent == (8, 3, 8)  # as many blocks as ever


def test_weights_begin_orthogonal_and_norms_near_one():
    with seeded(0):
        G, D = nets.Generator((3, 32, 32), 3, 2, 4), nets.ChildDiscriminator(32, 4)
    seen = 0
    for layer in (m for net in (G, D) for m in net.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert torch.linalg.svdvals(layer.weight.detach().flatten(1)) == pytest.approx(1, abs=1e-4)
            assert layer.bias is None or not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert not layer.bias.any() and (layer.weight - 1).abs().max() < 0.1
            seen += layer.weight.numel()
            assert layer.weight.numel() < 100 or layer.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert seen > 1000
    biased = {name for name, _ in D.named_parameters() if name.endswith("bias")}
    convs = {name for name, m in D.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    assert convs == {"real", "head.3"} and {f"{name}.bias" for name in convs} <= biased
    assert not any(m.bias is not None for m in G.modules() if isinstance(m, nn.Conv2d | nn.Linear))


# ---- the generator


def glu(x):
    a, g = x.chunk(2, dim=1)
    return a * g.sigmoid()


def norm(layer, x):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = layer.running_mean.view(shape), layer.running_var.view(shape)
    return (x - mean) / (var + 1e-5).sqrt() * layer.weight.view(shape) + layer.bias.view(shape)


def plain_same(layers, x):
    return glu(norm(layers[1], F.conv2d(x, layers[0].weight, padding=1)))


def plain_trunk(trunk, code, z):
    linear, first = trunk.first[0], trunk.first[1]
    x = glu(norm(first, torch.cat([code, z], 1) @ linear.weight.T)).reshape(len(z), -1, 4, 4)
    for up in trunk.ups:
        x = plain_same(up, F.interpolate(x, scale_factor=2, mode="nearest"))
    return x


def plain_join(join, x, code):
    tiled = code[:, :, None, None] * torch.ones_like(x[:, :1])
    x = glu(norm(join.norm[0], F.conv2d(torch.cat([x, tiled], 1), join.join.weight, padding=1)))
    for res in join.res:
        h = plain_same(res.layers[0], x)
        x = x + norm(res.layers[2], F.conv2d(h, res.layers[1].weight, padding=1))
    return x if isinstance(join.last, nn.Identity) else plain_same(join.last, x)


@pytest.mark.parametrize("table, size", [("small", 32), ("small", 64), ("mixnmatch", 128), ("finegan", 128)])
@torch.no_grad()
def test_generator_is_what_it_is_written_as(table, size):
    G, y = generator(size, table, wide=0.1), codes(2)
    made = G(**y)
    B = F.conv2d(plain_trunk(G.background_trunk, y["b"], y["z_b"]), G.background_head.weight, padding=1).tanh()
    F_p = plain_join(G.parent_join, plain_trunk(G.parent_trunk, y["p"], y["z"]), y["p"])
    found, last = {"B": B, "F": F_p}, B
    for stage, feature, heads in (
        ("P", F_p, G.parent_heads),
        ("C", plain_join(G.child_join, F_p, y["c"]), G.child_heads),
    ):
        front = F.conv2d(feature, heads.conv.weight[:3], padding=1).tanh()
        mask = F.conv2d(feature, heads.conv.weight[3:], padding=1).sigmoid()
        last = mask * front + (1 - mask) * last
        found |= {f"{stage}_f": front, f"{stage}_m": mask, stage: last}
    for name, wanted in found.items():
        torch.testing.assert_close(getattr(made, name), wanted, rtol=1e-3, atol=1e-5, msg=name)


def fixed(heads: nets.Heads, logit: float) -> None:
    """The mask head's weights so that every pixel has this logit."""
    with torch.no_grad():
        heads.conv.weight[3:] = 0
        heads.conv.bias = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, logit]))


@torch.no_grad()
def test_a_mask_of_nothing_shows_what_is_behind():
    G, y = generator(), codes()
    before = G(**y)
    fixed(G.parent_heads, -1e3)
    made = G(**y)
    assert not made.P_m.any() and torch.equal(made.P, made.B) and torch.equal(made.B, before.B)
    fixed(G.child_heads, -1e3)
    made = G(**y)
    assert not made.C_m.any() and torch.equal(made.C, made.P)
    fixed(G.parent_heads, 1e3)
    made = G(**y)
    assert torch.equal(made.P, made.P_f) and torch.equal(made.C, made.P) and not torch.equal(made.P, made.B)
    fixed(G.child_heads, 1e3)
    assert torch.equal(G(**y).C, G(**y).C_f)


@torch.no_grad()
def test_masks_are_shares():
    made = generator()(**codes())
    for mask in (made.P_m, made.C_m):
        assert 0 < mask.min() < 0.5 < mask.max() < 1
    mixed = nets.composite(torch.tensor(0.25), torch.tensor(8.0), torch.tensor(4.0))
    assert mixed == 5  # a quarter of the front


@torch.no_grad()
def test_each_code_reaches_its_own_stage():
    """Nothing of the background reaches the object, c only the child, and the child never sees the parent's mask."""
    G, y = generator(), codes()
    before = G(**y)._asdict()
    reach = {
        "z_b": {"B", "P", "C"}, "b": {"B", "P", "C"}, "c": {"C_f", "C_m", "C"},
        "z": {"F", "P_f", "P_m", "P", "C_f", "C_m", "C"}, "p": {"F", "P_f", "P_m", "P", "C_f", "C_m", "C"},
    }  # fmt: skip
    for name, wanted in reach.items():
        moved = G(**y | {name: y[name].flip(1) if name == "p" else y[name] + 1})._asdict()
        assert {k for k in before if not torch.equal(before[k], moved[k])} == wanted, name
    fixed(G.parent_heads, 0.3)
    moved = G(**y)._asdict()
    assert {k for k in before if not torch.equal(before[k], moved[k])} == {"P_m", "P", "C"}


@torch.no_grad()
def test_grey_parents_have_a_brightness_and_no_colour():
    with seeded(0):
        G = nets.Generator((3, 32, 32), 3, 2, 4, "small", 0.25, grey=True).eval()
    made, y = G(**codes()), codes()
    assert made.P_f.shape == made.B.shape and torch.equal(made.P_f, made.P_f[:, :1].expand_as(made.B))
    assert made.P_f.std() > 0.01 and (made.C_f - made.C_f[:, :1]).abs().max() > 0.01  # children are coloured
    grey = F.conv2d(made.F, G.parent_heads.conv.weight[:1], padding=1).tanh()
    mask = F.conv2d(made.F, G.parent_heads.conv.weight[1:], padding=1).sigmoid()
    torch.testing.assert_close(made.P, mask * grey + (1 - mask) * G.background(y["z_b"], y["b"]))


# ---- patches

PATCHES = {("finegan", 128): (126, 34, 4, 24), ("mixnmatch", 128): (126, 34, 4, 24), ("small", 64): (62, 16, 2, 24),
           ("small", 32): (32, 9, 1, 24)}  # fmt: skip


@pytest.mark.parametrize("table, size", SIZES)
def test_patches_follow_from_the_layers_and_cover_the_view(table, size):
    found = nets.patches(size, table)
    assert (found.side, found.field, found.stride, found.grid) == PATCHES[table, size]
    assert (found.grid - 1) * found.stride + found.field == found.side and found == nets.patches(size)


def test_patches_that_leave_a_rest_are_refused():
    with pytest.raises(ValueError, match=r"do not cover the view: \(24 - 1\) 4 \+ 34 = 126 pixels of 128"):
        nets.Patches(128, 34, 4, 24)
    assert nets.Patches(254, 34, 4, 56).grid == 56  # pictures twice as large


@pytest.mark.parametrize("table, size", SIZES)
def test_a_logit_sees_its_patch_and_nothing_else(table, size):
    with seeded(0):
        D = nets.PatchDiscriminator(size, table, 0.1)
    at, n = D.patches, D.patches.grid
    for i, j in ((0, 0), (n - 1, n - 1), (3, 17)):
        x = draw(1, 3, at.side, at.side, seed=1).requires_grad_()
        for head in D(x):
            (grad,) = torch.autograd.grad(head[0, 0, i, j], x, retain_graph=True)
            seen, wanted = grad[0].abs().sum(0) > 0, torch.zeros(at.side, at.side, dtype=torch.bool)
            wanted[at.stride * i : at.stride * i + at.field, at.stride * j : at.stride * j + at.field] = True
            assert torch.equal(seen, wanted)


def boxes_of(side: int, n: int = 40) -> torch.Tensor:
    """Boxes within a view: any, on whole pixels, at its borders, all of it, and without area."""
    ends = (side * torch.rand(n, 2, 2, generator=rng(3))).sort(dim=1).values  # (n, 2, 2): ends of x and y
    boxes = ends.flatten(1)
    boxes[: n // 2] = boxes[: n // 2].round()
    more = [[0, 0, side, side], [0, 0, 1, 1], [side - 1, side - 1, side, side], [0, 5, 0, 9], [5, 5, 9, 5],
            [7, 7, 7, 7], [side, 0, side, side], [0, 0, side, 0], [0, 0, 0, 0]]  # fmt: skip
    return torch.cat([boxes, torch.tensor(more, dtype=torch.float32)])


@pytest.mark.parametrize("table, size", [("finegan", 128), ("small", 64), ("small", 32)])
def test_valid_patches_are_those_that_do_not_touch_the_box(table, size):
    at = nets.patches(size, table)
    boxes = boxes_of(at.side)
    found = at.valid(boxes)
    assert found.shape == (len(boxes), 1, at.grid, at.grid) and found.dtype == torch.float32
    for (x1, y1, x2, y2), w in zip(boxes.tolist(), found[:, 0].tolist()):
        for i, j in itertools.product(range(at.grid), repeat=2):
            top, left = at.stride * i, at.stride * j
            touches = top <= y2 and y1 <= top + at.field and left <= x2 and x1 <= left + at.field
            assert w[i][j] == (x1 == x2 or y1 == y2 or not touches)
    assert found[40].sum() == 0 and (found[43:] == 1).all()  # all of the view is object; no object in it


@pytest.mark.parametrize("table, size", [("finegan", 128), ("small", 64), ("small", 32)])
def test_valid_patches_are_those_of_the_released_code(table, size):
    """Rows ceil((y1 - R) / s) ... floor((n - 1) - ((W - R) - y2) / s) and such columns are not valid."""
    at = nets.patches(size, table)
    R, s, n, W = at.field, at.stride, at.grid, at.side
    boxes = boxes_of(W)[:40]
    for (x1, y1, x2, y2), w in zip(boxes.double(), at.valid(boxes)[:, 0]):
        ends = [(max(0, int(torch.ceil((a - R) / s))), min(n - 1, int(torch.floor((n - 1) - ((W - R) - b) / s))))
                for a, b in ((y1, y2), (x1, x2))]  # fmt: skip
        wanted = torch.ones(n, n)
        wanted[ends[0][0] : ends[0][1] + 1, ends[1][0] : ends[1][1] + 1] = x1 == x2 or y1 == y2
        assert torch.equal(w, wanted)


# ---- the discriminators


def test_pictures_are_resized_corners_on_corners():
    D = nets.PatchDiscriminator(64, "small", 0.25)
    x, seen = draw(1, 3, 64, 64), []
    D.trunk.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    D(x)
    for i, j in ((0, 0), (0, 61), (61, 61), (20, 7)):
        at = torch.tensor([i, j]) * 63 / 61
        (r, c), (u, v) = at.floor().long().clamp(max=62).tolist(), (at - at.floor().clamp(max=62)).tolist()
        four = x[0, :, r : r + 2, c : c + 2]
        wanted = (1 - u) * ((1 - v) * four[:, 0, 0] + v * four[:, 0, 1]) + u * (
            (1 - v) * four[:, 1, 0] + v * four[:, 1, 1]
        )
        torch.testing.assert_close(seen[0][0, :, i, j], wanted, rtol=1e-4, atol=1e-5)
    D(draw(1, 3, 62, 62, seed=1))
    assert torch.equal(seen[1], draw(1, 3, 62, 62, seed=1))


def test_patch_discriminator_is_what_it_is_written_as():
    with seeded(0):
        D = nets.PatchDiscriminator(64, "small", 0.25)
        for p in D.parameters():
            p.data.add_(0.1 * torch.randn(p.shape))
    x = h = draw(2, 3, 62, 62)
    for conv in (m for m in D.trunk if isinstance(m, nn.Conv2d)):
        h = F.conv2d(h, conv.weight, conv.bias, conv.stride)
        h = torch.where(h > 0, h, 0.2 * h)
    for k, found in enumerate(D(x)):  # real, then background
        wanted = F.conv2d(h, D.heads.weight[k : k + 1], D.heads.bias[k : k + 1])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_readers_of_codes_are_what_they_are_written_as():
    with seeded(0):
        D_p, D_c = (
            nets.ParentDiscriminator(32, 3, "small", 0.5).eval(),
            nets.ChildDiscriminator(32, 4, "small", 0.5).eval(),
        )
        for p in [*D_p.parameters(), *D_c.parameters()]:
            p.add_(0.1 * torch.randn(p.shape))
    x = draw(2, 3, 32, 32)
    for D in (D_p, D_c):
        h, layers = x, [m for m in D.trunk if not isinstance(m, nn.LeakyReLU)]
        convs = [m for m in layers if isinstance(m, nn.Conv2d)]
        assert [m.stride[0] for m in convs] == [2, 2, 2, 1] and layers[1] is convs[1]  # no norm after the first
        for layer in layers:
            h = F.conv2d(h, layer.weight, None, layer.stride, 1) if isinstance(layer, nn.Conv2d) else norm(layer, h)
            last = layer is layers[0] or isinstance(layer, nn.BatchNorm2d)
            h = F.leaky_relu(h, 0.2) if last else h
        code = F.leaky_relu(norm(D.head[1], F.conv2d(h, D.head[0].weight, padding=1)), 0.2)
        code = F.conv2d(code, D.head[3].weight, D.head[3].bias).flatten(1)
        torch.testing.assert_close(D(x) if D is D_p else D(x, code=True), code, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(D_c(x), F.conv2d(h, D_c.real.weight, D_c.real.bias).flatten(), rtol=1e-4, atol=1e-5)
