"""Losses of batches: products of models in single precision whose losses end in double precision."""

from dataclasses import replace

import torch
from zoo import ROWS
from zoo_oracle import context_of

from attriboard.toolkit.batches import BatchLosses


def test_slopes_and_products_of_a_float32_model_have_its_precision():
    row = next(row for row in ROWS if row.name == "RMSNorm")
    double = context_of(row)
    checkpoint = double.checkpoints[0]
    losses = BatchLosses(double, checkpoint, None, torch.float32)
    start = {name: value.float() for name, value in checkpoint.parameters.items() if name in losses.names}
    directions = {name: torch.ones_like(value).unsqueeze(0) for name, value in start.items()}
    batch = losses.at(start, replace(double.train, inputs=double.train.inputs.float()))
    into = {name: torch.zeros_like(value) for name, value in directions.items()}
    slopes = batch.add_hessian(directions, into)
    assert slopes.dtype == batch.slopes(directions).dtype == torch.float32
    torch.testing.assert_close(slopes, batch.slopes(directions))
    assert all(value.dtype == torch.float32 for value in into.values())
