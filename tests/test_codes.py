"""The laws of blocks, on every block of every toy and on random code spaces, and the operations that stand on them."""

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from disentkit.codes import Block, CodeSpace, gaussian_blocks

SPACES = {name: toy.space for name, toy in toys.TOYS.items()} | {"renderer": toys.Dots().codes}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(a, b) -> None:
    assert a.shape == b.shape and torch.equal(a, b)


def close(a, b) -> None:
    """For a view (a learned direction), which adds and subtracts; a slice is moved without rounding."""
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def check_laws(space: CodeSpace, n: int, seed: int) -> None:
    a, b = draw(n, space.size, seed=seed), draw(n, space.size, seed=seed + 1)
    for block in space:
        equal = exact if type(block) is Block else close
        kept = a.clone()
        equal(block.write(a, block.read(a)), a)
        value = draw(n, *block.shape, seed=seed + 2)
        equal(block.read(block.write(a, value)), value)
        assert block.read(a).shape == (n, *block.shape)
        exact(a, kept)  # write makes new codes
        one = space.swap(a, b, block.name)
        equal(block.read(one), block.read(b))
        equal(space.swap(one, a, block.name), a)  # swapping back restores
        for other in space:  # a block that shares no position with this one is not moved
            if type(block) is type(other) is Block and not set(other.at) & set(block.at):
                exact(other.read(one), other.read(a))


@every_space
def test_laws_of_every_toy(space):
    check_laws(space, n=5, seed=0)


@st.composite
def spaces(draw) -> CodeSpace:
    """Blocks of random kinds and shapes, in order or scattered over a longer code."""
    blocks = []
    for i in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["gaussian", "uniform", "onehot", "free", "map"]))
        axes = {"onehot": (1, 1), "map": (3, 3)}.get(kind, (1, 2))
        shape = tuple(draw(st.lists(st.integers(1, 3), min_size=axes[0], max_size=axes[1])))
        blocks.append(Block(f"b{i}", kind, shape, inferred=draw(st.booleans())))
    size = sum(b.size for b in blocks)
    if draw(st.booleans()):
        return CodeSpace(blocks)
    order, placed, start = draw(st.permutations(range(size + 2))), [], 0
    for b in blocks:
        placed.append(Block(b.name, b.kind, b.shape, inferred=b.inferred, at=tuple(order[start : start + b.size])))
        start += b.size
    return CodeSpace(placed, size=size + 2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spaces(), st.integers(1, 4), st.integers(0, 99))
def test_laws_of_random_spaces(space, n, seed):
    check_laws(space, n, seed)
    a, b = draw(n, space.size, seed=seed), draw(n, space.size, seed=seed + 1)
    exact(space.swap(space.swap(a, b, space.names), a, space.names), a)
    exact(space.mix(a, b, torch.ones(len(space))), a)
    exact(space.mix(a, b, torch.zeros(len(space))), space.swap(a, b, space.names))
    mask = torch.rand(n, len(space), generator=torch.Generator().manual_seed(seed)) < 0.5
    mixed = space.mix(a, b, mask)
    for i, block in enumerate(space):
        for row in range(n):
            exact(block.read(mixed)[row], block.read(a if mask[row, i] else b)[row])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(spaces(), st.integers(2, 6), st.integers(0, 99))
def test_ways_between_codes(space, steps, seed):
    a, b = draw(space.size, seed=seed), draw(1, space.size, seed=seed + 1)
    path = space.interpolate(a, b, steps)
    exact(path[:1], space.swap(a[None], a[None], space.names))
    close(path[-1:], space.swap(a[None], b, space.names))
    first, others = space.names[0], space.names[1:]
    part = space.interpolate(a, b, steps, [first])
    for name in others:  # the other blocks stay where `a` has them
        exact(space.read(part, name), space.read(a.repeat(steps, 1), name))
    half = space.interpolate(a, b, 3)[1:2]
    close(space.read(half, first), (space.read(a[None], first) + space.read(b, first)) / 2)
    values = torch.randn(steps, *space[first].shape, generator=torch.Generator().manual_seed(seed))
    walk = space.traverse(a, first, values)
    exact(space.read(walk, first), values)
    for name in others:
        exact(space.read(walk, name), space.read(a.repeat(steps, 1), name))


def test_traverse_takes_plain_numbers():
    space = gaussian_blocks(3)
    walk = space.traverse(torch.tensor([1.0, 2.0, 3.0]), "z1", [-2, 0, 2])
    exact(walk, torch.tensor([[1.0, -2, 3], [1, 0, 3], [1, 2, 3]]))


@every_space
def test_prior_and_centre(space):
    """Slices follow their own prior; a view has none that a code space could know."""
    codes = space.prior(4000, torch.Generator().manual_seed(0))
    centre = space.centre(2)
    assert codes.shape == (4000, space.size) and centre.shape == (2, space.size)
    for block in space:
        drawn, middle = block.read(codes), block.read(centre)
        if block.kind == "uniform":
            assert block.low <= drawn.min() and drawn.max() <= block.high
            assert drawn.mean().item() == pytest.approx((block.low + block.high) / 2, abs=(block.high - block.low) / 30)
            close(middle, torch.full_like(middle, (block.low + block.high) / 2))
        elif block.kind == "onehot":
            assert set(drawn.unique().tolist()) == {0.0, 1.0} and (drawn.sum(-1) == 1).all()
            assert (drawn.mean(0) - 1 / block.size).abs().max() < 0.04
            close(middle, torch.full_like(middle, 1 / block.size))
        else:
            assert drawn.mean().item() == pytest.approx(0, abs=0.1) and drawn.std().item() == pytest.approx(1, abs=0.1)
            close(middle, torch.zeros_like(middle))
    exact(space.prior(5, torch.Generator().manual_seed(1)), space.prior(5, torch.Generator().manual_seed(1)))
    assert not torch.equal(space.prior(5, torch.Generator().manual_seed(1)), codes[:5])


def test_regroup_reads_its_members_in_order():
    space = gaussian_blocks(5).regroup({"pose": ["z3", "z0"], "look": ["z1"]})
    assert space.names == ("pose", "look", "z2", "z4") and space.size == 5
    codes = torch.arange(10.0).reshape(2, 5)
    exact(space.read(codes, "pose"), torch.tensor([[3.0, 0], [8, 5]]))
    exact(space.write(codes, "pose", torch.zeros(2, 2)), torch.tensor([[0.0, 1, 2, 0, 4], [0, 6, 7, 0, 9]]))
    assert [b.name for b in space.scalars] == ["look", "z2", "z4"]


def test_what_is_a_scalar():
    blocks = [
        Block("a"),
        Block("b", "onehot"),
        Block("c", "map", (1, 1, 1)),
        Block("d", "free", (2,)),
        Block("e", "uniform"),
    ]
    assert [b.name for b in CodeSpace(blocks).scalars] == ["a", "e"]


@pytest.mark.parametrize("make, message", [
    (lambda: Block("a", "blob"), "block 'a': unknown kind 'blob'; known: gaussian, uniform"),
    (lambda: Block("a", low=1, high=1), "block 'a': low 1 must be below high 1"),
    (lambda: Block("a", shape=(2, 0)), r"block 'a': shape \(2, 0\) must hold positive sizes"),
    (lambda: Block("a", "onehot", (3,), labels=("x", "y")), "block 'a': 2 labels for 3 categories"),
    (lambda: Block("a", shape=(3,), at=(0, 1)), r"block 'a': 2 positions for shape \(3,\)"),
    (lambda: Block("a", shape=(2,), at=(1, 1)), "block 'a': a position comes twice"),
    (lambda: CodeSpace([Block("a"), Block("a")]), "two blocks share one name: a, a"),
    (lambda: CodeSpace([Block("a", at=(3,))], size=2), "blocks reach position 3 of a code of 2 numbers"),
    (lambda: gaussian_blocks(2)["z7"], "no block 'z7'; this code has z0, z1"),
    (lambda: gaussian_blocks(2).read(torch.zeros(3, 4), "z0"), r"codes must be \(N, 2\), not \(3, 4\)"),
    (lambda: gaussian_blocks(2).write(torch.zeros(2), "z0", 1.0), r"codes must be \(N, 2\), not \(2,\)"),
    (lambda: gaussian_blocks(2).swap(torch.zeros(1, 2), torch.zeros(1, 3), "z0"), r"not \(1, 3\)"),
    (lambda: gaussian_blocks(2).mix(torch.zeros(1, 2), torch.zeros(1, 2), [1, 0, 1]), r"must be \(2,\) or \(1, 2\)"),
    (lambda: CodeSpace([Block("w", shape=(3,))]).traverse(torch.zeros(3), "w", [1, 2, 3]), "block 'w' takes values"),
    (lambda: gaussian_blocks(3).regroup({"a": ["z0"], "b": ["z0"]}), "a block can be in one group only"),
    (lambda: gaussian_blocks(3).regroup({"a": ["z9"]}), "no block 'z9'"),
])  # fmt: skip
def test_errors_say_what_was_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_codes_keep_their_gradient():
    """Blocks are written and read inside training steps."""
    codes = torch.ones(2, 4, requires_grad=True)
    space = gaussian_blocks(4).regroup({"pose": ["z0", "z2"]})
    space.read(space.write(codes, "z1", torch.zeros(2, 1)), "pose").sum().backward()
    exact(codes.grad, torch.tensor([[1.0, 0, 1, 0]] * 2))


def test_repr_names_blocks():
    text = repr(CodeSpace([Block("layout", "map", (2, 4, 4)), Block("light")]))
    assert text == "CodeSpace(33 numbers: layout map[2, 4, 4], light free[1])"
