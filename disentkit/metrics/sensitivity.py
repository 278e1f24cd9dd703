"""How much two scores depend on settings that should not matter (Kim & Mnih 2018, appendix B).

The FactorVAE score is computed with other numbers of rows per vote (L) and of votes; the beta-VAE score with other
numbers of pairs per vote (L), of votes, and of steps of its classifier (iterations), which is trained by Adagrad here.
One setting is changed at a time, the others stay as they are in `AT`.
"""
from disentkit.metrics.arrays import source, whole
from disentkit.metrics.betavae import betavae_score
from disentkit.metrics.factorvae import factorvae_score

AT = {
    "factorvae_score": {"L": 100, "votes": 800},
    "betavae_score": {"L": 200, "votes": 800, "iterations": 10_000},
}


def sensitivity(codes, factors, *, L=(10, 25, 50, 100, 200), votes=(50, 100, 200, 400, 800, 1_600),
                iterations=(100, 300, 1_000, 3_000, 10_000), seeds=(0, 1, 2), names=None) -> list[dict]:
    """Both scores under varied settings, as rows for a frame or a plot.

    codes, factors          (N, d) and (N, K), numpy or torch; or a model that can encode and data with factors, of
                            which 10,000 pictures are encoded, once, and then used as arrays: pruning knows the standard
                            deviation, not the KL. Of a model, inferred blocks of size 1 are scored
    L, votes, iterations    the values to try of each; an empty one is not varied
    seeds                   each draws votes of its own; their spread is the noise against which to read a trend
    names                   the K factors' names, for arrays

    Returns a list of dicts ready for JSON: `metric` ("factorvae_score", pruned, or "betavae_score", Adagrad), `setting`
    ("L", "votes" or "iterations"), `value`, `seed`, `score` (on fresh votes). The FactorVAE score needs as many rows
    of every factor value as the largest L, the beta-VAE score two. Some 20 s on 10,000 x 10 codes.
    Raises ValueError (one line) as the two metrics do.
    """
    varied = {"L": L, "votes": votes, "iterations": iterations}
    least = {"L": 2, "votes": 2, "iterations": 1}
    for name, values in varied.items():
        varied[name] = [whole(f"a value of {name}", value, least[name]) for value in values]
    seeds = [whole("a seed", seed, least=0) for seed in seeds]
    src = source(codes, factors, names, 0)
    if src.protocol == "model":  # encoded once, for all the rows
        codes, factors, names = src.codes, src.classes, src.factors
    rows = []
    for metric, base in AT.items():
        for setting in base:
            for value in varied[setting]:
                for seed in seeds:
                    options = {**base, setting: value, "seed": seed, "names": names}
                    if metric == "factorvae_score":
                        score = factorvae_score(codes, factors, **options)["pruned"]
                    else:
                        score = betavae_score(codes, factors, classifier="adagrad", **options)["score"]
                    rows.append({"metric": metric, "setting": setting, "value": value, "seed": seed, "score": score})
    return rows
