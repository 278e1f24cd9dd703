"""Scores of codes whose factors are known: arrays `(codes, factors)` or `(model, data)`. One file per metric."""
from disentkit.metrics.betavae import betavae_score
from disentkit.metrics.factorvae import factorvae_score
from disentkit.metrics.mig import mig

__all__ = ["betavae_score", "factorvae_score", "mig"]
