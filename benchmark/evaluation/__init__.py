"""Where scores meet ground truth, and every study on top of that."""
