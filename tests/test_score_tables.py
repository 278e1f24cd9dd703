"""Scores as text: what stands in a card is in the tables."""

from __future__ import annotations

from disentkit.score_tables import shown

SCORES = {
    "mask_iou": {"generated": 0.81, "code": 0.5},
    "self_recombination": {"shape": 0.9, "rotation": 0.71},
    "pose_r2": {"x": 0.2, "mean": 0.432},
    "pose_invariance": {"texture": {"same": 0.95, "chance": 0.05}},
    "texture_distance": {"mixed": None, "other": 0.9, "same": 0.31, "apart": 0.87, "failures": 1.0},
    "gates": {"mask IoU": {"asked": 0.7, "measured": 0.81, "met": True}},
}


def test_mixing_scores_are_all_told():
    (text,) = shown(SCORES)
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert lines == {
        "mask IoU 0.810 asked 0.7: met",
        "mask IoU, of what is drawn 0.810",
        "mask IoU, code mode 0.500",
        "self-recombination, shape 0.900 all of the code from one picture",
        "self-recombination, rotation 0.710 all of the code from one picture",
        "pose R2 0.432 linear in E_z, mean of its targets",
        "texture kept when z changes 0.950 chance 0.05",
        "texture distance - true pictures: 0.310 of one texture, 0.870 of two",
    }


def test_what_is_not_measured_has_no_row():
    (text,) = shown({"mask_iou": {}, "gates": SCORES["gates"]})
    assert text.split() == ["mask", "IoU", "0.810", "asked", "0.7:", "met"]
