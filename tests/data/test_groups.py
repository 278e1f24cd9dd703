"""Groups against brute force: who shares what, that nothing held out is ever drawn, and who has no partner."""

from itertools import combinations as subsets

import numpy as np
import pytest
import torch
import toys
from torch.utils._python_dispatch import TorchDispatchMode

from disentkit import data as datasets
from disentkit.data import candidates, combinations, groups, partners
from disentkit.data.base import ArrayData, Data, Renderer, StoredGrid
from disentkit.data.combinations import held_out, unbalanced, unseen
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.groups import Groups, Partners, cover_sets, covers, multigraph, shared
from disentkit.data.laws import Correlated, Grid, HeldOut, Real
from disentkit.errors import UserError

ALL = ("group", "edges", "strangers")
LAB = FactorSpace([category("kind", *"abcdef"), Factor("pose", "cyclic", tuple(range(0, 360, 60))),
                   Factor("floor", "real", (0.1, 0.2, 0.4, 0.8, 1.6)), category("light", "dim", "bright")])  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Plain(toys.Dots):
    """Dots whose batches hold nothing but x and factors."""

    sample = Renderer.sample


class Lab(Renderer):
    """Pictures that show their factors: a pixel for each."""

    name, space, image_shape = "lab", LAB, (1, 1, 4)

    def render(self, values):
        return values[:, None, None] / 360


def grid(space=LAB):
    return space.from_grid(space.tuple_of(torch.arange(space.grid_size)))


def numbered(values, space) -> ArrayData:
    """Stored pictures that show their row's number."""
    rows = torch.arange(len(values))
    return ArrayData(torch.stack([rows // 256, rows % 256], 1).to(torch.uint8)[:, None], values, space, "numbered")


def lab_table(n: int = 700) -> ArrayData:
    """As in a turntable's pictures: half of the kinds with two poses only, some tuples often, others never."""
    idx = torch.stack([torch.randint(size, (3 * n,), generator=rng(k)) for k, size in enumerate(LAB.sizes)], 1)
    idx = torch.where(torch.rand(3 * n, 1, generator=rng(9)) < 0.2, idx[:1], idx)  # one tuple is a fifth of all
    return numbered(LAB.from_grid(idx[(idx[:, 0] < 3) | (idx[:, 1] < 2)][:n]), LAB)


def sparse() -> Renderer:
    """A law that leaves a twentieth of the grid: partners come from the list."""
    return Lab().with_law(HeldOut(Grid(), lambda v: (v * torch.tensor([7, 0.1, 110, 3])).sum(1).round() % 25 != 0))


MAKE = {
    "grid": Plain,
    "held out": lambda: Plain().with_law(held_out(Plain.space, 0.2)),
    "unbalanced": lambda: Lab().with_law(unbalanced(LAB, "kind", "pose", 3, 2)),
    "sparse": sparse,
    "table": lab_table,
    "stored grid": lambda: StoredGrid(numbered(grid(), LAB), held_out(LAB, 0.3)),
}


@pytest.fixture(params=MAKE)
def data(request) -> Data:
    return MAKE[request.param]()


def rows_of(data: Data) -> torch.Tensor:
    """All pictures there are, (N, K)."""
    if isinstance(data, ArrayData):
        return data.factors
    every = grid(data.space)
    return every[~data.law.rule(every)] if isinstance(data.law, HeldOut) else every


def fits(rows, centre, kind):
    """By brute force: which rows (N, K) share exactly attribute `kind` with a centre (K,), or nothing for kind K."""
    return ((rows == centre) == (torch.arange(rows.shape[1]) == kind)).all(1)


def check_batch(batch, data, m):
    """Groups, edges and strangers are what they are said to be, and their pictures show the factors reported."""
    rows, wanted = {tuple(row) for row in rows_of(data).tolist()}, torch.eye(m + 1, m).bool()
    group, edges, strangers = (batch[key] for key in ("group_factors", "edge_factors", "stranger_factors"))
    assert (shared(group[:, :1], group[:, 1:]) == wanted).all()
    assert (edges[:, :, 0] == edges[:, :, 1]).diagonal(dim1=1, dim2=2).all()
    assert not shared(strangers[:, 0], strangers[:, 1]).any()
    for key, factors in (("group", group), ("edges", edges), ("strangers", strangers)):
        assert {tuple(row) for row in factors.flatten(0, -2).tolist()} <= rows, f"{key} hold tuples that the law lacks"
        x, flat = batch[key].reshape(-1, *data.image_shape), factors.reshape(-1, m)
        if isinstance(data, ArrayData):
            number = (x.flatten(1) * 255).round().long() @ torch.tensor([256, 1])
            assert torch.equal(data.factors[number], flat)
        else:
            torch.testing.assert_close(x, data.render(flat))


# ---- the graph


def test_multigraph_by_brute_force():
    values = LAB.from_grid(LAB.draw_grid(12, rng()))
    wanted = [[i, k, j] for i in range(12) for k in range(i + 1, 12) for j in range(4) if values[i, j] == values[k, j]]
    assert multigraph(values).tolist() == wanted and len(wanted) > 20
    near = values + 0.01 * torch.rand(values.shape, generator=rng())
    assert multigraph(near, LAB).tolist() == wanted and not len(multigraph(near))


def test_cover_sets_by_brute_force():
    values = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [2, 2, 2], [0, 0, 0.0]])
    sets = [set(s) for size in range(5) for s in subsets(range(1, 7), size)]
    edges = multigraph(values).tolist()
    good = [s for s in sets if all(any([0, k, j] in edges for k in s) for j in range(3))]
    minimal = [s for s in good if not any(other < s for other in good)]
    assert [set(s) for s in cover_sets(values, 0, 4)] == minimal == [{6}, {3, 4}, {1, 2, 3}]
    assert cover_sets(values, 0, 2) == [(6,), (3, 4)] and cover_sets(values, 5, 4) == []
    for s in sets:
        assert covers(values, 0, s) == (s in good)
    with pytest.raises(ValueError, match="a cover of picture 0 is made of other pictures"):
        covers(values, 0, [0, 1])


# ---- groups


def test_groups_edges_and_strangers(data):
    wrapped = Groups(data, ALL)
    batch = wrapped.sample(60, rng())
    m = len(data.space)
    for key, many in (("group", (m + 2,)), ("edges", (m, 2)), ("strangers", (2,))):
        assert batch[key].shape == (60, *many, *data.image_shape) and batch[groups.KEYS[key]].shape == (60, *many, m)
    check_batch(batch, data, m)
    assert torch.equal(batch["x"], batch["group"][:, 0]) and torch.equal(batch["factors"], batch["group_factors"][:, 0])
    for values in batch["group_factors"][:20]:  # the partners together make the centre
        assert covers(values, 0, range(1, m + 1)) and not covers(values, 0, [m + 1])
    for key in ("edges", "strangers"):
        alone = Groups(data, (key,)).sample(5, rng())
        assert torch.equal(alone["x"], alone[key].reshape(5, -1, *data.image_shape)[:, 0])
        assert torch.equal(alone["factors"], alone[groups.KEYS[key]].reshape(5, -1, m)[:, 0])


def test_without_reading_back(data, monkeypatch):
    """As on a GPU: the same groups, without one look at the outcome."""
    monkeypatch.setattr(partners, "_READ_BACK", ())
    sampler = Partners(data, reads=ALL)
    seen = {key: sampler.draw(key, 2, rng()).shape[1:] for key in ALL}  # tables and spare groups are there now
    blind = [key for key in ALL if sampler._tries[key]]
    assert "edges" in blind
    with NoReading():
        drawn = {key: sampler.draw(key, 300, rng()) for key in blind}
    for key, places in drawn.items():
        values = sampler.values(places)
        assert places.shape == (300, *seen[key]) and len(places.unique(dim=0)) > 40
        if key != "edges":
            wanted = torch.eye(len(sampler) + 1, len(sampler)).bool()[-1 if key == "strangers" else 0 :]
            assert (shared(values[:, :1], values[:, 1:]) == wanted).all()
    for key in blind:  # too few tries: some groups are the spare one, none is wrong
        sampler._tries[key] = 1
    wrapped = Groups(data, ALL)
    wrapped.partners = sampler
    check_batch(wrapped.sample(100, rng()), data, len(data.space))


class NoReading(TorchDispatchMode):
    """Fails on whatever would make the host wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.__name__.split(".")[0] not in ("nonzero", "_local_scalar_dense", "masked_select", "equal"), func
        if func.__name__.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "indexed by a mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rounds", [partners._ROUNDS, 0], ids=["drawn", "looked up"])
@pytest.mark.parametrize("make", [MAKE["unbalanced"], lab_table], ids=["law", "table"])
def test_every_partner_is_as_likely_as_the_others(make, rounds, monkeypatch):
    """Chi-square over all pictures that may be the partner of one centre."""
    monkeypatch.setattr(partners, "_ROUNDS", rounds)
    data, n = make(), 3000 if rounds else 1000
    rows, sampler = rows_of(data), Partners(data)
    centre = rows[7:8]
    many = centre.expand(n, -1)
    drawn = torch.cat([sampler.partners(many, rng()), sampler.strangers(many, rng(1))[:, None]], dim=1)
    tuples, often = rows.unique(dim=0, return_counts=True)
    for kind in range(5):
        good = fits(tuples, centre[0], kind)
        found = (drawn[:, kind, None] == tuples).all(2).sum(0).double()
        wanted = n * often[good] / often[good].sum()
        chi2, free = ((found[good] - wanted) ** 2 / wanted).sum(), good.sum() - 1
        assert found[good].sum() == n and abs(chi2 - free) < 5 * (2 * free) ** 0.5 + 3


def test_edges_are_free_elsewhere():
    edges = Partners(Plain(), reads=()).edges(20_000, rng())
    agree = shared(*edges.unbind(2)).double().mean(0)
    chance = torch.tensor([1 / size for size in Plain.space.sizes]).double().repeat(4, 1)
    chance.fill_diagonal_(1)
    torch.testing.assert_close(agree, chance, atol=0.02, rtol=0)
    law = MAKE["unbalanced"]().law  # both ends as the law draws them
    edges = Partners(Lab().with_law(law), reads=()).edges(20_000, rng())[:, 0]  # agree on the kind
    pose = [float((edges[:, end, 1] >= 120).double().mean()) for end in (0, 1)]
    assert pose == pytest.approx([3 * 4 / (3 * 6 + 3 * 2)] * 2, abs=0.02)


@pytest.mark.parametrize("make", [MAKE["held out"], lab_table], ids=["law", "table"])
def test_seeds_and_threads(make):
    sampler = Partners(make(), reads=ALL)

    def draw(seed):
        return {key: sampler.draw(key, 3000, rng(seed)) for key in ALL}

    one, threads = draw(3), torch.get_num_threads()
    torch.set_num_threads(2)
    two = draw(3)
    torch.set_num_threads(threads)
    assert not toys.same(one, two)
    assert not any(torch.equal(one[key], other) for key, other in draw(4).items())


def test_some_attributes_only():
    data = Lab().with_law(held_out(LAB, 0.2))
    sampler = Partners(data, ("light", "kind"))
    values = sampler.values(sampler.draw("group", 2000, rng()))
    alike = shared(values[:, :1], values[:, 1:])
    assert values.shape == (2000, 4, 4) and (alike[:, :, [3, 0]] == torch.eye(3, 2).bool()).all()
    assert not data.law.rule(values.reshape(-1, 4)).any()
    assert abs(alike[:, :, 1].double().mean() - 1 / 6) < 0.03  # nobody asks whether poses agree
    assert Groups(lab_table(), attributes=("kind", "light")).sample(9, rng())["group_factors"].shape == (9, 4, 4)


# ---- no leak


def leaks(data: Renderer, rule, n: int = 3000) -> int:
    """How many of the tuples drawn, in every role, `rule` holds out; also that pictures belong to their factors."""
    batch = Groups(data, ALL).sample(n, rng())
    for key in ALL:
        torch.testing.assert_close(batch[key].flatten(0, -4), data.render(batch[groups.KEYS[key]].reshape(-1, 4)))
    return sum(int(rule(batch[key].reshape(-1, 4)).sum()) for key in groups.KEYS.values())


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("listed", [combinations.LISTED, 50], ids=["listed", "too large to list"])
def test_no_held_out_tuple_is_ever_drawn(part, listed, monkeypatch):
    """3,000 groups of six, 12,000 edges and 3,000 strangers: 48,000 tuples, not one of them held out."""
    data = Lab().with_law(held_out(LAB, 0.35, part))
    rule = data.law.rule
    assert 0.2 < rule(grid()).float().mean() < 0.8
    for module in (combinations, candidates):
        monkeypatch.setattr(module, "LISTED", listed)
    assert leaks(data, rule) == 0
    # The test can fail: a sampler that does not ask the rule is found out.
    monkeypatch.setattr(candidates.Law, "_passes", lambda self, places: torch.ones_like(places, dtype=torch.bool))
    assert leaks(data, rule) > 1000


def test_a_held_out_tuple_may_ask_for_partners():
    """As a target of zero-shot synthesis: its providers were all seen in training."""
    data = Lab().with_law(held_out(LAB, 0.2))
    targets = unseen(data).law.draw(LAB, 500, rng())
    assert data.law.rule(targets).all()
    sampler = Partners(data)
    found, strangers = sampler.partners(targets, rng()), sampler.strangers(targets, rng())
    assert (shared(targets[:, None], found) == torch.eye(4).bool()).all() and not shared(targets, strangers).any()
    assert not data.law.rule(torch.cat([found.reshape(-1, 4), strangers])).any()


# ---- who has no partner


def small_table(seed: int, n: int = 40) -> ArrayData:
    return numbered(LAB.from_grid(LAB.draw_grid(n, rng(seed))), LAB)


@pytest.mark.parametrize("listed", [combinations.LISTED, 0], ids=["on the grid", "by sets"])
@pytest.mark.parametrize("seed", range(3))
def test_partners_are_counted(seed, listed, monkeypatch):
    data = small_table(seed)
    rows = data.factors
    wanted = torch.stack([torch.stack([fits(rows, centre, kind).sum() for kind in range(5)]) for centre in rows])
    monkeypatch.setattr(candidates, "LISTED", listed)
    idx = LAB.to_grid(rows)
    assert torch.equal(candidates._partner_counts(idx, list(LAB.sizes), range(5)).long(), wanted)
    assert torch.equal(candidates._partner_counts(idx, list(LAB.sizes), range(4, 5)).long(), wanted[:, 4:])
    whole = (wanted > 0).all(1)
    sampler = Partners(data, reads=("group", "strangers"))
    assert 0 < whole.sum() < 40
    assert sampler.left_out == {"group": int((~whole).sum()), "strangers": int((wanted[:, 4] == 0).sum())}
    centres = sampler.draw("group", 400, rng())[:, 0]
    assert set(centres.tolist()) == set(whole.nonzero()[:, 0].tolist())  # all that can be, and no other
    lonely, kind = (wanted[:, :4] == 0).nonzero()[0].tolist()
    with pytest.raises(ValueError, match=f"'numbered' has no picture that shares '{LAB.names[kind]}' alone with kind"):
        sampler.partners(rows[lonely : lonely + 1], rng())


@pytest.mark.parametrize("attributes", [None, ("pose", "kind", "light")])
def test_odds_are_those_of_a_proposal(attributes):
    for data in (MAKE["unbalanced"](), lab_table()):
        sampler = Partners(data, attributes, reads=())
        pool = sampler._pool(torch.device("cpu"))
        m = len(sampler)
        kinds, places = range(m + 1), pool.all_places()[[3, 50, -1]]
        odds = pool.odds(kinds)[[3, 50, -1]]
        idx = pool.idx(places)[:, None, None].expand(3, m + 1, 4000, 4).reshape(-1, 4)
        good = pool.propose(idx, torch.arange(m + 1).repeat_interleave(4000).repeat(3), rng(), True)[1]
        torch.testing.assert_close(good.reshape(3, m + 1, -1).float().mean(2), odds, atol=0.04, rtol=0)


BLOCKED = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1.0]])  # the first two go together
RING = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 2], [3, 3.0]])  # nobody has a partner in both


@pytest.mark.parametrize("make, message", [
    (lambda: Groups(ArrayData(np.zeros((4, 8, 8), np.uint8))), "data set 'arrays' is unlabelled, so nobody knows"),
    (lambda: Groups(Plain().with_law(Real())), r"partners need equal values: take the law Grid\(\), plain or under a"),
    (lambda: Groups(Plain().with_law(Correlated("x", "y", 0.5))), r"take the law Grid\(\), .* not Correlated"),
    (lambda: Groups(Plain().with_law(HeldOut(Real(), lambda v: v[:, 0] == 1))), r"take the law Grid\(\)"),
    (lambda: Groups(numbered(BLOCKED[:2], None)), "attribute 'f0' has one value only, so nothing can be swapped: drop"),
    (lambda: Groups(Plain().with_law(HeldOut(Grid(), lambda v: v[:, 0] == 1))),
     "the held-out rule leaves no picture with kind 'ring'"),
    (lambda: Groups(Plain().with_law(HeldOut(Grid(), lambda v: v[:, 1] == 6)), ("edges",)),
     "the held-out rule leaves no picture with x 6"),
    (lambda: Groups(numbered(BLOCKED, None)), r"no picture of 'numbered' shares 'f0' alone with another one, as "
     r"pictures that agree on it agree on something else too: take the relaxed sampler, reads=\('edges',\)"),
    (lambda: Groups(numbered(RING, None)), "no picture of 'numbered' has every partner that a group needs: take"),
    (lambda: Groups(numbered(torch.rand(9, 3, generator=rng()), FactorSpace(Factor(n, "real", (0, 1)) for n in "abc"))),
     "factor 'a' has values between its grid values, but partners need equal ones"),
    (lambda: Groups(numbered(torch.arange(60.0).reshape(5, 12) * 1e6, None)), "of 12 attributes are not looked for"),
    (lambda: Groups(Groups(Plain())), "partners come from a Renderer or from ArrayData, not from Groups"),
    (lambda: Groups(Plain(), ("trio",)), "groups have no key 'trio'; there are group, edges, strangers"),
    (lambda: Groups(Plain(), ()), "groups have to be told what to read; there are group, edges, strangers"),
    (lambda: Groups(Plain(), attributes=("x", "hue")), "no factor 'hue'; there are kind, x, y, light"),
    (lambda: Groups(Plain(), attributes=("x", "x")), "name each attribute once, and at least one"),
])  # fmt: skip
def test_groups_say_what_was_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_has_no_exact_partners_has_edges():
    data = numbered(BLOCKED, None)
    values = Groups(data, ("edges", "strangers")).sample(50, rng())
    assert (values["edge_factors"][:, :, 0] == values["edge_factors"][:, :, 1]).diagonal(dim1=1, dim2=2).all()
    assert not shared(*values["stranger_factors"].unbind(1)).any()
    cross = numbered(torch.tensor([[0, 0], [0, 1], [1, 0.0]]), None)
    assert Partners(cross, reads=("strangers",)).left_out == {"strangers": 1}  # the others share nothing
    star = numbered(torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), None)
    with pytest.raises(ValueError, match="no picture of 'numbered' shares nothing with another one"):
        Partners(star, reads=("strangers",))


def test_a_law_too_large_to_count(monkeypatch):
    for module in (combinations, candidates):
        monkeypatch.setattr(module, "LISTED", 50)
    sampler = Partners(Lab().with_law(held_out(LAB, 0.2)))
    assert sampler.left_out == {"group": None}
    law = combinations.Combinations(Grid(), lambda v: (v[:, 3] == 0) == (v[:, 0] != 0))  # dim is the first kind alone
    with pytest.raises(ValueError, match="no picture of 'lab' shares 'kind' alone"):
        Partners(Lab().with_law(law))


# ---- the wrapper


def test_a_wrapper_is_the_data_it_wraps(data):
    wrapped = Groups(data)
    assert wrapped.spec == data.spec and wrapped.name == data.name and wrapped.fingerprint() == data.fingerprint()
    moved = wrapped.to("cpu")
    assert isinstance(moved, Groups) and not toys.same(moved.sample(4, rng()), wrapped.sample(4, rng()))
    assert not toys.same(wrapped.sample_fixed(1, 5, rng(), 2), data.sample_fixed(1, 5, rng(), 2))
    if isinstance(data, ArrayData):  # pictures are stored once
        assert wrapped.data.images.data_ptr() == data.images.data_ptr() == moved.data.images.data_ptr()


def test_complete_wraps_what_lacks_a_key():
    dots, plain = toys.Dots(), Plain()
    assert datasets.complete(plain, ("x", "factors")) is plain and datasets.complete(plain, ("x", "tune")) is plain
    assert datasets.complete(dots, ("x", "group")) is dots  # its batches have groups of their own
    wrapped = datasets.complete(plain, ("x", "group", "strangers"))
    assert isinstance(wrapped, Groups) and wrapped.data is plain
    assert set(datasets.complete(dots, ("group", "edges")).sample(2, rng())) >= {"group", "edges"}
    fitted, learned = toys.fit(toys.build("Groups"), data=datasets.complete(plain, toys.TOYS["Groups"].reads))
    assert fitted.steps == 12 and all(np.isfinite(row["swap"]) for row in learned["rows"])
    with pytest.raises(UserError, match="reads 'group', but batches of 'dots' hold only x, factors"):
        toys.fit(toys.build("Groups"), data=plain)
    with pytest.raises(ValueError, match="unlabelled"):
        datasets.complete(ArrayData(np.zeros((4, 8, 8), np.uint8)), ("group",))
