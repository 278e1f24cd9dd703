"""Scores of codes whose factors are known: arrays `(codes, factors)` or `(model, data)`. One file per metric."""
from disentkit.metrics.betavae import betavae_score
from disentkit.metrics.dci import dci
from disentkit.metrics.factorvae import factorvae_score
from disentkit.metrics.irs import irs
from disentkit.metrics.likelihood import log_likelihood
from disentkit.metrics.mig import mig
from disentkit.metrics.modularity import explicitness, modularity
from disentkit.metrics.sap import sap
from disentkit.metrics.sensitivity import sensitivity
from disentkit.metrics.tc import (
    aggregate_codes,
    discriminator_tc,
    gaussian_tc,
    kl_split,
    tc_by_batch,
    total_correlation,
)
from disentkit.metrics.udr import udr

__all__ = [
    "aggregate_codes", "betavae_score", "dci", "discriminator_tc", "explicitness", "factorvae_score", "gaussian_tc",
    "irs", "kl_split", "log_likelihood", "mig", "modularity", "sap", "sensitivity", "tc_by_batch", "total_correlation",
    "udr",
]
