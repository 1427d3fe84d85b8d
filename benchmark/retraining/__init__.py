"""Retraining: one engine and one content-addressed store serve every question about other training sets."""
