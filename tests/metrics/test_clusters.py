"""Clusters: labels under other names, the best assignment by brute force, chance, and who says what of whom."""

import itertools
import math

import numpy as np
import pytest
import torch
from metrics.mixing_oracles import FEATURE, LAYOUT, Generator, Grey, Mixer, Reader, Tiles

from disentkit.codes import gaussian_blocks
from disentkit.metrics import clusters, code_clusters, draw_pictures, drawn_clusters

TILES = Tiles()
OWN = {"p": "shape", "c": "texture", "b": "background"}


def test_a_perfect_model():
    found = code_clusters(Mixer(), TILES, n=1000)
    assert list(found.nmi.index) == ["p", "c", "b"] and list(found.nmi.columns) == ["shape", "texture", "background"]
    assert np.diag(found.nmi) == pytest.approx([1, 1, 1])
    assert found.accuracy == found.majority == dict.fromkeys("pcb", 1) and found.used == {"p": 4, "c": 6, "b": 6}
    off = ~np.eye(3, dtype=bool)
    assert found.nmi.to_numpy()[off].max() < 0.03 and found.chance.to_numpy().max() < 0.03
    assert found.settings == {"pictures": 1000, "seed": 0, "codes": "pictures"}


def test_names_of_the_codes_do_not_matter():
    class Renamed(Mixer):
        def code_of(self, values):
            values = values.clone()
            values[:, 2] = torch.tensor([3.0, 0, 5, 1, 4, 2])[values[:, 2].long()]
            return super().code_of(values)

    found, plain = code_clusters(Renamed(), TILES, n=500), code_clusters(Mixer(), TILES, n=500)
    assert found.nmi.to_numpy() == pytest.approx(plain.nmi.to_numpy()) and found.accuracy == plain.accuracy


def test_codes_that_tell_another_factor():
    found = code_clusters(Mixer({**LAYOUT, "b": ["texture"], "c": ["background"]}), TILES, n=800)
    assert found.nmi.loc["b", "texture"] == found.nmi.loc["c", "background"] == pytest.approx(1)
    assert found.nmi.loc["b", "background"] < 0.05 and found.accuracy["b"] < 0.3 and found.accuracy["p"] == 1


def test_a_dead_code():
    found = code_clusters(Mixer({**LAYOUT, "p": []}), TILES, n=400)
    assert (found.nmi.loc["p"].abs() < 1e-9).all() and found.used["p"] == 1
    assert found.accuracy["p"] == found.majority["p"] == pytest.approx(0.25, abs=0.08)


def test_twice_as_many_codes_as_values_are_half_right_one_to_one():
    codes = np.arange(1200) % 12
    classes = codes // 2
    assert clusters.hungarian(codes, classes) == pytest.approx(0.5)
    assert clusters.counts(codes, classes).max(1).sum() / 1200 == 1


def test_the_best_assignment_by_brute_force():
    rng = np.random.default_rng(0)
    for rows, columns in ((4, 4), (5, 3), (3, 5)):
        codes, classes = rng.integers(0, rows, 60), rng.integers(0, columns, 60)
        table = np.array([[np.sum((codes == i) & (classes == j)) for j in range(columns)] for i in range(rows)])
        assert (clusters.counts(codes, classes) == table).all()
        wide = table if rows <= columns else table.T
        ways = itertools.permutations(range(wide.shape[1]), len(wide))
        best = max(sum(wide[i, j] for i, j in enumerate(way)) for way in ways)
        assert clusters.hungarian(codes, classes) == best / 60


def test_nmi_from_its_definition():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, 300)
    classes = np.where(rng.random(300) < 0.6, codes, rng.integers(0, 4, 300))
    joint = clusters.counts(codes, classes) / 300
    a, b = joint.sum(1), joint.sum(0)
    information = sum(p * math.log(p / (a[i] * b[j])) for (i, j), p in np.ndenumerate(joint) if p)
    entropy = [-sum(p * math.log(p) for p in part) for part in (a, b)]
    assert clusters._nmi(classes, codes) == pytest.approx(2 * information / sum(entropy))
    assert clusters._nmi(classes, (3 * codes + 1) % 7) == pytest.approx(clusters._nmi(classes, codes))


def test_what_the_drawn_codes_govern():
    found = drawn_clusters(Generator(), TILES, Reader(), n=500)
    assert np.diag(found.nmi) == pytest.approx([1, 1, 1]) and found.settings["codes"] == "prior"
    lost = drawn_clusters(Grey(), TILES, Reader(), n=900)
    assert lost.nmi.to_numpy().max() < 0.04 and max(lost.accuracy.values()) < 0.32
    made = draw_pictures(Generator(), 300, seed=4)
    again = drawn_clusters(Generator(), TILES, Reader(), made=made)
    assert again.settings["pictures"] == 300
    assert again.nmi.equals(drawn_clusters(Generator(), TILES, Reader(), n=300, seed=4).nmi)


def test_few_pictures_agree_by_chance():
    """What a shuffle has is not 0, and a dead code in the cross table may be no better than that."""
    found = code_clusters(Mixer(), TILES, n=60)
    assert found.chance.loc["c", "texture"] > 0.08
    assert found.nmi.loc["c", "background"] == pytest.approx(found.chance.loc["c", "background"], abs=0.15)


def test_feature_mode_has_no_p():
    found = code_clusters(Mixer(FEATURE), TILES, n=100)
    assert list(found.nmi.index) == ["c", "b"] and set(found.accuracy) == {"c", "b"}


def test_bad_input():
    with pytest.raises(ValueError, match="has no encoder for"):
        code_clusters(Generator(), TILES)
    with pytest.raises(ValueError, match="Mixer draws no codes by 'prior': give a model in code mode"):
        drawn_clusters(Mixer(FEATURE), TILES, Reader())
    model = Mixer()
    model.codes = gaussian_blocks(3)
    with pytest.raises(ValueError, match="none of the blocks p, c, b is in this code: z0, z1, z2"):
        code_clusters(model, TILES)
