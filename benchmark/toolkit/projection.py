"""Random projection of gradients that never builds an n_params × d_proj matrix.

The subsampled randomized Fourier transform: flip the sign of every coordinate at random, rotate by the real
orthonormal Fourier basis, keep d_proj of the N rotated coordinates drawn without replacement, scale by
√(N/d_proj). Inner products are kept in expectation, ⟨Px, Py⟩ ≈ ⟨x, y⟩, with at most the variance of a
Gaussian projection, at O(N log N) for a gradient whatever d_proj is.

Ailon & Chazelle 2009 (the fast Johnson–Lindenstrauss transform); Halko, Martinsson & Tropp 2011, section 4.6.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attriboard.base.errors import HyperparameterError


class FourierProjection:
    """A projection from n_params to d_proj dimensions, the same one for the same seed.

    Args:
        n_params: length of a gradient.
        d_proj: dimensions kept; with d_proj ≥ n_params nothing is projected and inner products are exact.
        seed: entropy of the signs and of the choice of coordinates.
        device: where the gradients are.

    Raises:
        HyperparameterError: d_proj < 1.
    """

    def __init__(self, n_params: int, d_proj: int, seed: int | tuple[int, ...], device: str = "cpu") -> None:
        from scipy.fft import next_fast_len

        if d_proj < 1:
            raise HyperparameterError(f"projection_dim = {d_proj}: must be at least 1")
        self.exact = d_proj >= n_params
        self.d_proj = min(d_proj, n_params)
        if self.exact:
            return
        # Padding with zeros to a length with small prime factors keeps the transform orthonormal and fast.
        self._length = next_fast_len(n_params, real=True)
        random = np.random.default_rng(seed)
        self._signs = torch.from_numpy(2.0 * random.integers(0, 2, n_params) - 1.0).to(device)
        kept = np.sort(random.choice(self._length, d_proj, replace=False))
        # The half spectrum as real numbers is Re X₀, Im X₀ = 0, Re X₁, Im X₁, …: skip the second.
        self._positions = torch.from_numpy(kept + (kept > 0)).to(device)
        # ‖x‖² = (X₀² + 2 Σ_k |X_k|² + X_{N/2}²) / N, the last term for even N: those two count once.
        single = (kept == 0) | (kept == self._length - 1) & (self._length % 2 == 0)
        self._scale = torch.from_numpy(np.where(single, 1.0, np.sqrt(2.0)) / np.sqrt(d_proj)).to(device)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Project rows: (b, n_params) → (b, d_proj), in the dtype of the gradients."""
        if self.exact:
            return gradients
        rotated = torch.fft.rfft(gradients * self._signs.to(gradients.dtype), n=self._length)
        coordinates = torch.view_as_real(rotated).flatten(1).index_select(1, self._positions)
        return coordinates * self._scale.to(gradients.dtype)
