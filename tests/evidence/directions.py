"""The measurements behind 03_continuous_directions: the oracle, beta-VAEs, a small BigGAN, baselines, ablations.

    python tests/evidence/directions.py [--only oracle ablation ...] [--jobs N] [--preset quick] [--home DIR]
                                        [--out DIR]

data/results gets these tables, and their card directions.json; directions_quick.json says whether the gates hold.
`model` is "oracle" or "gan"; `factor` is x, y, zoom or brightness, in their units (methods/transforms.py); alpha is
<z,u>; r2, slope and spearman are of measured on requested over |alpha| <= 2; std is the mean over requests of the
standard deviation over codes; seconds are of one thread's time on the CPU, wall is what the clock said.

    part oracle
    directions_oracle.csv      variant (default, coordinate, tied), seed, factor, cos, cos_horizon, spearman, slope, r2,
                               std, held_out (R2 of pairs that the fit has not seen), seconds, wall (of the pair of
                               factors x, zoom or y, brightness that is learned in one call)
    part ablation
    directions_ablation.csv    model, variant, factor, cos (oracle), spearman, slope, std, length (mean |z| at the
                               farthest target), limit (sqrt(d), the ball), energy (fine detail of the pictures found,
                               over that of their targets), energy_start (over that of the pictures begun with),
                               texture (oracle: mean change of the texture's amplitude), error (filtered at 3/128 of
                               the width, at the farthest target), steps, seconds
    part pieces
    directions_pieces.csv      model, factor, pieces (1, 5, 25, 101), r2_fit, held_out, spearman, slope, r2, std
    directions_quality.csv     model, factor, how, share (of the trajectories), held_out, spearman, r2, cos (oracle);
                               the card has rank correlations of held_out with spearman and with cos
    part classes
    directions_classes.csv     factor, learned (class or "pooled"), shown (class), spearman, slope, std
    directions_cosines.csv     factor, first, second (class or "pooled"), cosine
    part betas
    directions_betas.csv       beta, seed, factor, std, natural (std of the untouched pictures), change, spearman,
                               slope, cos_best (largest |u| of one latent), kl (sum), living (latents), recon, seconds
    directions_betas_curves.csv  beta, seed, factor, alpha, t, median, std
    part baselines
    directions_baselines.csv   model, factor, method (ours, linear walk, closed form, SeFa, GANSpace, random 0 ...),
                               spearman, slope, r2, change, std, leak, into, failures, cos (oracle), seconds;
                               all asked for the same alpha from -2 to 2, so slope and change are per <z,u>
    directions_leakage.csv     model, method (ours, random), direction, factor, leak
    directions_curves.csv      model, factor, alpha, t, median, std: ours, through its own g
    part reach
    directions_reach.csv       model, direction, instrument (exact, segmenter, saliency), alpha, t, median, std, slope,
                               failures, broken, energy
    directions_carries.csv     model, direction, instrument, stops below, stops above, breaks below, breaks above,
                               carries below, carries above
    directions_agreement.csv   model, direction, zone ("within 2", "beyond 3"), first, second, factor, pictures,
                               correlation, slope, difference, disagree, one_only
    part distribution
    directions_distribution.csv  model, factor, low, high, before, after (KS distances), offset
    part levels
    directions_levels.csv      run, factor, block, share (of |u|^2)
    part horizon
    directions_horizon.csv     run, rho (planted), correlation (of y and horizon in the run's pictures), spearman,
                               slope, leak (into the horizon), leak_random, horizon (its change over that of y); the
                               shares of |u|^2 stand in directions_levels.csv

Every part is written when it is done. Each measurement is kept in data/local/evidence/directions under the version of
the code that made it, so the command goes on where it stopped. What needs a run or a reader that is not shipped yet is
left out and listed in the card. About an hour on two CPU cores.

As in run.py a row belongs to the version of the code that made it; tests/test_directions_evidence.py compares them.
"""
