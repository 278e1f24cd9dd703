"""Scores of codes whose factors are known: arrays `(codes, factors)` or `(model, data)`. One file per metric."""
from disentkit.metrics.augmentation import augmentation
from disentkit.metrics.betavae import betavae_score
from disentkit.metrics.block_probes import block_probes
from disentkit.metrics.clusters import Clusters, code_clusters, drawn_clusters
from disentkit.metrics.coprediction import CoPrediction, co_prediction
from disentkit.metrics.dci import dci
from disentkit.metrics.factorvae import factorvae_score
from disentkit.metrics.frechet import frechet, frechet_distance
from disentkit.metrics.instruments import ExactMask, Saliency, Segmented, Threshold, agreement
from disentkit.metrics.instruments import error as instrument_error
from disentkit.metrics.irs import irs
from disentkit.metrics.likelihood import log_likelihood
from disentkit.metrics.masks import mask_iou
from disentkit.metrics.mig import mig
from disentkit.metrics.mixes import Drawn, Mixed, draw_pictures, mix_pictures
from disentkit.metrics.modularity import explicitness, modularity
from disentkit.metrics.pose import pose_invariance, pose_r2
from disentkit.metrics.reach import Reach, reach
from disentkit.metrics.retrieval import retrieval
from disentkit.metrics.sap import sap
from disentkit.metrics.sensitivity import sensitivity
from disentkit.metrics.steering import Steering, leakage, steer
from disentkit.metrics.swaps import Swaps, accuracy_ceilings, name_blocks, round_trip, swap_matrix
from disentkit.metrics.synthesis import Measured, Synthesis, synthesise, zero_shot
from disentkit.metrics.tc import (
    aggregate_codes,
    discriminator_tc,
    gaussian_tc,
    kl_split,
    tc_by_batch,
    total_correlation,
)
from disentkit.metrics.texture import texture_distance
from disentkit.metrics.transfer import Transfer, self_recombination, transfer
from disentkit.metrics.udr import udr

__all__ = [
    "Clusters", "CoPrediction", "Drawn", "ExactMask", "Measured", "Mixed", "Reach", "Saliency", "Segmented", "Steering",
    "Swaps", "Synthesis", "Threshold", "Transfer", "accuracy_ceilings", "aggregate_codes", "agreement", "augmentation",
    "betavae_score", "block_probes", "co_prediction", "code_clusters", "dci", "discriminator_tc", "draw_pictures",
    "drawn_clusters", "explicitness", "factorvae_score", "frechet", "frechet_distance", "gaussian_tc",
    "instrument_error", "irs", "kl_split", "leakage", "log_likelihood", "mask_iou", "mig", "mix_pictures", "modularity",
    "name_blocks", "pose_invariance", "pose_r2", "reach", "retrieval", "round_trip", "sap", "self_recombination",
    "sensitivity", "steer", "swap_matrix", "synthesise", "tc_by_batch", "texture_distance", "total_correlation",
    "transfer", "udr", "zero_shot",
]
