"""Shared numerics for attributors: per-example gradients, kernels, projections, spectra."""
