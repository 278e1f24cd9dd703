"""Scores as tables of text, for the command line."""

from __future__ import annotations

from collections.abc import Sequence


def shown(scores: dict) -> list[str]:
    """What `workbench.score` found, a table each with a line above that says what it shows."""
    parts = [table(_column_scores(scores))] if "mig" in scores else []
    parts += _block_scores(scores) if "blocks" in scores else []
    parts += _attribute_scores(scores) if "co_prediction" in scores else []
    parts += _direction_scores(scores) if "directions" in scores else []
    parts += _mixing_scores(scores) if "gates" in scores else []
    return parts


def table(rows: Sequence[Sequence], header: Sequence[str] = ()) -> str:
    """Rows as aligned columns, numbers to the right; the last column is not padded."""
    lines = [tuple(str(cell) for cell in row) for row in [*([header] if header else []), *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    body = lines[bool(header) :]
    right = [all(line[i][:1].isdigit() or line[i] in "-?" for line in body) for i in range(len(widths))]
    padded = [[c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _column_scores(scores: dict) -> list[tuple]:
    """(score, number, what to know) of every score of columns."""
    f, gap = scores["factorvae_score"], scores["mig"]
    kept = f"{f['surviving']} of {f['dims']} latents survive pruning"
    rows = [
        ("FactorVAE score", f"{f['pruned']:.3f}", f"pruned; {kept}"),
        ("", f"{f['unpruned']:.3f}", f"unpruned; chance is {1 / len(f['factors']):.2f}"),
        ("beta-VAE score", f"{scores['betavae_score']['score']:.3f}", "a linear classifier; near 1 is normal"),
        ("MIG", f"{gap['mig']:.3f}", ", ".join(f"{k} {v:.2f} ({gap['best'][k]})" for k, v in gap["gaps"].items())),
    ]  # fmt: skip
    if "dci" in scores:
        dci = scores["dci"]
        rows += [(f"DCI {part}", f"{dci[part]:.3f}", dci["settings"]["engine"] + " trees") for part in
                 ("disentanglement", "completeness", "informativeness")]  # fmt: skip
        rows += [(name.upper() if len(name) < 4 else name, f"{scores[name][name]:.3f}", "") for name in
                 ("sap", "modularity", "explicitness", "irs")]  # fmt: skip
    return rows


def _block_scores(scores: dict) -> list[str]:
    """Tables of blocks and factors, each with a line that says what it shows, and what they come to."""
    found = scores["blocks"]
    tables = {
        "what follows a block when it is swapped: how often the judge sees the donor's value": found["follows"],
        "what can be read from a block: a linear probe's share of right answers, balanced": found["linear"],
    }
    if "retrieval" in scores:
        tables |= {"the same by the nearest picture": found["nearest"], "retrieval (mAP)": scores["retrieval"]}
    shown = []
    for title, rows in tables.items():
        rows = rows | ({"the judge": found["judge"]} if rows is found["follows"] else {})
        factors = list(found["judge"])  # a factor that stood still in the pictures of one measure is not in its rows
        cells = [(block, *("-" if row.get(f) is None else f"{row[f]:.2f}" for f in factors))
                 for block, row in rows.items()]  # fmt: skip
        shown.append(f"{title}\n{table(cells, ('block', *factors))}")
    best = ", ".join(f"{name} {found['best'][name]['block']}" for name in found["followed"])
    rows = [("followed", f"{len(found['followed'])} of {len(found['best'])}", f"beat twice chance: {best or 'none'}")]
    if "alive" in found:
        rows.append(("alive", f"{found['alive']:g} of {len(found['accuracy'])}", "blocks that the classifier can read"))
    return [*shown, table(rows)]


def _attribute_scores(scores: dict) -> list[str]:
    """The co-prediction matrix and the numbers of zero-shot synthesis."""
    read = scores["co_prediction"]
    names = list(read["accuracy"]["chance"])
    cells = [(block, *(f"{row[name]:.2f}" for name in names)) for block, row in read["accuracy"].items()]
    rows = [
        ("co-prediction", f"{read['diagonal']:.3f}", "mean of an attribute from its own block; ideal 1"),
        ("", f"{read['off_diagonal']:.3f}", "mean of an attribute from the other blocks; ideal chance"),
    ]
    if made := scores.get("zero_shot"):
        copy = f"{made['best_copy']:.2f} dB for a copy of the {made['best_provider']} provider"
        rows += [
            ("zero-shot PSNR", f"{made['psnr']:.2f} dB", f"of combinations that were held out; {copy}"),
            ("", f"{made['seen']:.2f} dB", "of combinations that were not"),
            ("", f"{made['rebuilt']:.2f} dB", "of reconstructions of the true pictures"),
        ]
    title = "what a small classifier reads from a block: its share of right answers"
    return [f"{title}\n{table(cells, ('block', *names))}", table(rows)]


def _direction_scores(scores: dict) -> list[str]:
    """Each direction by itself, then what it moves besides."""
    keys, every = ("spearman", "slope", "r2", "std", "failures"), scores["directions"].items()
    rows = [(name, *("-" if one.get(key) is None else f"{one[key]:.3f}" for key in keys)) for name, one in every]
    leaks, seen = scores["leakage"], list(next(iter(scores["leakage"].values())))
    cells = [(n, *("-" if row[f] is None else f"{row[f]:.2f}" for f in seen)) for n, row in leaks.items()]
    by = f"measured by {scores['instrument']}, for values that the prior makes likely"
    moved = "what each direction moves: spread along it over the spread of samples"
    above = table(rows, ("direction", "Spearman", "slope", "R2", "spread at one t", "nothing found"))
    return [f"{by}\n{above}", f"{moved}\n{table(cells, ('direction', *seen))}"]


def _mixing_scores(scores: dict) -> list[str]:
    """What comes from which picture, what the codes stand for, and what was asked for."""
    parts = []
    if moved := scores.get("transfer"):
        sources = list(next(iter(moved["matrix"].values())))
        cells = [(name, *(f"{row[s]:.2f}" for s in sources), f"{moved['chance'][name]:.2f}")
                 for name, row in moved["matrix"].items()]  # fmt: skip
        title = "what of the mix agrees with which source, by a judge; rotation: a correlation"
        parts.append(f"{title}\n{table(cells, ('measured', *(f'{s} from' for s in sources), 'chance'))}")
    for name, title in (
        ("code_clusters", "read from pictures"),
        ("drawn_clusters", "drawn, against what a judge sees"),
    ):
        if found := scores.get(name):
            factors = list(next(iter(found["nmi"].values())))
            cells = [(block, *(f"{row[f]:.2f}" for f in factors)) for block, row in found["nmi"].items()]
            parts.append(f"NMI of codes {title}\n{table(cells, ('code', *factors))}")
    rows = [(name, f"{gate['measured']:.3f}", f"asked {gate['asked']:g}: {'met' if gate['met'] else 'missed'}")
            for name, gate in scores["gates"].items()]  # fmt: skip
    if "boxes" in scores:
        rows.append(("overlap of the boxes", f"{scores['boxes']:.3f}", "a segmenter's, with the true ones"))
    ious = {"of what is drawn": "generated", "code mode": "code", "feature mode": "feature"}
    rows += [(f"mask IoU, {said}", f"{scores['mask_iou'][key]:.3f}", "") for said, key in ious.items()
             if scores["mask_iou"].get(key) is not None]  # fmt: skip
    rows += [(f"Frechet distance, {key}", f"{value:.3f}", "on the judge's features, no FID")
             for key, value in scores.get("frechet", {}).items()]  # fmt: skip
    return [*parts, table([*rows, *_more_of_mixing(scores)])]


def _more_of_mixing(scores: dict) -> list[tuple]:
    """(score, number, what to hold it against): pictures rebuilt from their own codes, pose, colours of the texture."""
    rows = [(f"self-recombination, {name}", share, "all of the code from one picture")
            for name, share in scores.get("self_recombination", {}).items()]  # fmt: skip
    if "pose_r2" in scores:
        rows.append(("pose R2", scores["pose_r2"]["mean"], "linear in E_z, mean of its targets"))
    rows += [(f"{name} kept when z changes", kept["same"], f"chance {kept['chance']:.2f}")
             for name, kept in scores.get("pose_invariance", {}).items()]  # fmt: skip
    if far := scores.get("texture_distance"):
        said = f"true pictures: {far['same']:.3f} of one texture, {far['apart']:.3f} of two"
        rows.append(("texture distance", far["mixed"], said))
    return [(name, "-" if value is None else f"{value:.3f}", said) for name, value, said in rows]
