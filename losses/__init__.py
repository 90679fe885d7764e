"""Ground truth: how far predictions are from it, as a loss to train on and as a score to report."""
