"""Dense CRF of two labels by its definition: every pixel pair, a loop over pixels, float64."""

from __future__ import annotations

import numpy as np


def mean_field(
    probability: np.ndarray,
    rgb: np.ndarray,
    *,
    near_sigma_px: float,
    near_weight: float,
    place_sigma_px: float,
    colour_sigma: float,
    colour_weight: float,
    steps: int,
) -> np.ndarray:
    """Marginal of label 1, (H, W), of a probability map (H, W) and its picture (H, W, 3).

    Energies -log p, Potts compatibility, kernels normalised by 1 / sqrt(n_i n_j).
    """
    height, width = probability.shape
    p = np.clip(probability.astype(np.float64), 1e-4, 1 - 1e-4).ravel()
    place = np.stack(np.mgrid[:height, :width], axis=-1).reshape(-1, 2).astype(np.float64)
    colour = rgb.reshape(-1, 3).astype(np.float64)
    kernels = []
    for place_sigma, colour_scale in ((near_sigma_px, np.inf), (place_sigma_px, colour_sigma)):
        kernel = np.empty((len(p), len(p)))
        for i in range(len(p)):
            square = ((place[i] - place) ** 2).sum(1) / place_sigma**2
            square += ((colour[i] - colour) ** 2).sum(1) / colour_scale**2
            kernel[i] = np.exp(-square / 2)
        total = kernel.sum(1)
        kernels.append(kernel / np.sqrt(total[:, None] * total))
    unary = np.stack([-np.log(1 - p), -np.log(p)])  # energies of labels 0 and 1
    belief = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(steps):
        energy = unary.copy()
        for weight, kernel in zip((near_weight, colour_weight), kernels, strict=True):
            heard = belief @ kernel.T
            energy += weight * heard[::-1]  # Potts: a label pays for the other one around it
        belief = np.exp(-energy) / np.exp(-energy).sum(0)
    return belief[1].reshape(height, width)
