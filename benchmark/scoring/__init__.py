"""Scorers: arrays in, numbers out."""
