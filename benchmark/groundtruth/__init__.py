"""Ground truth: many retrains on random subsets, reduced to a checked, pickle-free bundle."""
