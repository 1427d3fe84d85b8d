"""BM25: the ranking function of search engines, with the test example as the query. For text only.

Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, section 3; in the form of Lucene:

    τ(z', i) = Σ_w q_w · idf_w · t_{i,w} (k₁ + 1) / (t_{i,w} + k₁ (1 − b + b · l_i / l̄)),
    idf_w = log(1 + (n − n_w + ½)/(n_w + ½))

with q_w and t_{i,w} how often token w occurs in the test and the training block, l_i the length of block i, l̄ the mean
length, and n_w the number of training blocks that have w. A control: it never looks at the model.

Deviations: words are the model's tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Attributor, Context, Hyperparameter
from attriboard.toolkit import needs

LUCENE = "Lucene 9 BM25Similarity"


class BM25(Attributor):
    """BM25 of token blocks."""

    name = "bm25"
    family = "baseline"
    hyperparameters = (
        Hyperparameter(
            "k1",
            1.2,
            f"{LUCENE}: k1=1.2",
            stage="score",
            minimum=0.0,
            grid=(0.0, 0.6, 1.2, 2.0),
            description="k₁: how fast repetitions of a token stop counting; 0 counts none",
        ),
        Hyperparameter(
            "b",
            0.75,
            f"{LUCENE}: b=0.75",
            stage="score",
            minimum=0.0,
            maximum=1.0,
            grid=(0.0, 0.5, 0.75, 1.0),
            description="how far long blocks are held against their length",
        ),
    )

    def fit(self, context: Context) -> tuple[Any, Any, str]:
        """Count the tokens: sparse (n_train, n_tokens) and (n_test, n_tokens), and the device.

        Raises:
            NotApplicableError: inputs are no blocks of tokens.
        """
        from scipy.sparse import csr_array

        sides = context.train.inputs, context.test.inputs
        if any(one.is_floating_point() or one.dim() != 2 for one in sides):
            raise NotApplicableError("inputs are not blocks of tokens; BM25 is for text")
        vocabulary, columns = np.unique(torch.cat(sides).cpu().numpy(), return_inverse=True)
        rows = np.repeat(np.arange(len(columns)), columns.shape[1])
        shape = len(columns), len(vocabulary)
        counts = csr_array((np.ones(columns.size), (rows, columns.ravel())), shape=shape)
        return counts[: len(sides[0])], counts[len(sides[0]) :], context.device

    def score(self, state: tuple[Any, Any, str], *, k1: float, b: float) -> Tensor:
        """Weigh the counts, and add up over the query."""
        counts, queries, device = state
        n_train, lengths = counts.shape[0], counts.sum(1)
        rarity = (counts > 0).sum(0)
        idf = np.log1p((n_train - rarity + 0.5) / (rarity + 0.5))
        weights = counts.tocoo()
        rows, columns = weights.coords
        norm = k1 * (1 - b + b * lengths / lengths.mean())
        weights.data = weights.data * (k1 + 1) / (weights.data + norm[rows]) * idf[columns]
        return torch.from_numpy((queries @ weights.tocsr().T).toarray()).float().to(device)

    def memory_need(self, context: Context) -> dict[str, int] | None:
        """Token counts in a few forms, and the scores, sparse and dense."""
        if context.train.inputs.is_floating_point():
            return None
        counts = 200 * (context.train.inputs.numel() + context.test.inputs.numel())
        return {"token counts": counts, "scores": 6 * needs.pairs(context, needs.DOUBLE)}
