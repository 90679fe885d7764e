"""How far predictions are from the ground truth: as a loss to train on and as a score to report."""
