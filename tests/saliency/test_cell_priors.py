"""Priors on cells against the plain formulas, one image at a time in float64."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fovea.saliency import cell_priors
from fovea.saliency.cell_cues import CHANNELS, cell_cues
from fovea.saliency.cell_priors import Measured
from fovea.saliency.network import rgb_to_lab
from fovea.saliency.priors import dense_sparse_reconstruction
from fovea.saliency.regions import stretch, two_ring

SIDE = 5
COUNT = SIDE * SIDE


def measured(seed: int = 0, batch: int = 2) -> Measured:
    """Random cells, none of them empty."""
    draw = torch.Generator().manual_seed(seed)
    lab = torch.rand(batch, COUNT, 3, generator=draw) * 80
    features = torch.rand(batch, COUNT, 8, generator=draw)
    place = (torch.stack([torch.arange(COUNT) // SIDE, torch.arange(COUNT) % SIDE], 1) + 0.5) / SIDE
    return Measured(
        lab=lab,
        texture=torch.rand(batch, COUNT, 9, generator=draw) * 20,
        yx=place.expand(batch, -1, -1),
        features=features,
        size=torch.randint(20, 100, (batch, COUNT, 1), generator=draw).float(),
        graph=cell_priors.graph(SIDE, torch.device("cpu")),
    )


def slow_graph() -> tuple[np.ndarray, list[np.ndarray]]:
    """Links (N, N) and the four borders (N,), by loops."""
    place = [(i // SIDE, i % SIDE) for i in range(COUNT)]
    on = [(y == 0, y == SIDE - 1, x == 0, x == SIDE - 1) for y, x in place]
    touch = np.zeros((COUNT, COUNT), bool)
    for i, (y, x) in enumerate(place):
        for j, (v, u) in enumerate(place):
            touch[i, j] = max(abs(y - v), abs(x - u)) == 1 or (any(on[i]) and any(on[j]))
    return two_ring(touch), [np.array([sides[k] for sides in on], float) for k in range(4)]


def looks(seen: Measured) -> list[np.ndarray]:
    """Colour and texture (N, 12) of each picture."""
    return list(torch.cat([seen.lab, seen.texture], 2).double().numpy())


def slow_weights(look: np.ndarray) -> np.ndarray:
    """exp(-10 d) + leak on the links."""
    links, _ = slow_graph()
    distance = np.linalg.norm(look[:, None] - look, axis=2)
    near = distance[links]
    scaled = (distance - near.min()) / np.ptp(near)
    return np.where(links, np.exp(-cell_priors.SHARPNESS * scaled) + cell_priors.LEAK, 0)


def test_texture_is_the_energy_of_three_octaves() -> None:
    """Against scipy's Gaussian, away from where the kernels are cut; flat pictures have none."""
    lab = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 80
    got = cell_priors.texture_of(lab)[0].numpy()
    planes = lab[0].double().numpy()
    blurred = [planes, *(np.array([gauss(p, s) for p in planes]) for s in (1.0, 2.0, 4.0))]
    for band in range(3):
        for k in range(3):
            want = gauss(np.abs(blurred[band][k] - blurred[band + 1][k]), 4.0)
            np.testing.assert_allclose(got[3 * band + k], want, rtol=0.02, atol=0.05)
    assert cell_priors.texture_of(torch.full((1, 3, 40, 40), 50.0)).abs().max() < 1e-3


def gauss(plane: np.ndarray, sigma_px: float) -> np.ndarray:
    return gaussian_filter(plane, sigma_px, mode="mirror", truncate=3)


def test_texture_tells_what_colour_does_not() -> None:
    """A striped square on grey of the same mean colour."""
    rgb = torch.full((1, 3, 128, 128), 0.5)
    rgb[:, :, 40:88, 40:88] = 0.5 + 0.2 * torch.tensor([1.0, -1.0]).repeat(24)
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[40:88, 40:88] = True
    last = cell_cues(rgb, rgb_to_lab(rgb), 16)[0, -1]
    assert last[inside].mean() > 0.7 > 0.2 > last[~inside].mean()


def test_ranking_is_that_of_the_prior() -> None:
    seen = measured()
    against, front, _ = cell_priors.ranking(cell_priors.link_weights(seen), seen.graph)
    _, sides = slow_graph()
    for k, look in enumerate(looks(seen)):
        weight = slow_weights(look)
        rank = np.linalg.inv(np.diag(weight.sum(axis=1)) - 0.99 * weight)
        np.fill_diagonal(rank, 0)
        want = np.array([1 - stretch(rank @ side) for side in sides])
        np.testing.assert_allclose(against[k].numpy().T, want, atol=2e-3)
        product = want.prod(axis=0)
        query = (product >= product.mean()).astype(float)
        np.testing.assert_allclose(front[k, :, 0], stretch(rank @ query), atol=2e-3)


def test_absorption_is_the_expected_length_of_a_walk() -> None:
    """By powers of the transition matrix: sum over t of P(not absorbed after t steps)."""
    seen = measured(1)
    got = cell_priors.absorption(cell_priors.link_weights(seen), seen.graph)
    _, sides = slow_graph()
    border = np.array(sides).max(axis=0)
    for k, look in enumerate(looks(seen)):
        weight = slow_weights(look) + np.eye(COUNT)
        to_copies = weight @ border  # a copy for each border cell, with the links of the original
        stay = weight / (weight.sum(axis=1) + to_copies)[:, None]
        alive, steps = np.ones(COUNT), np.zeros(COUNT)
        while alive.max() > 1e-9:
            steps += alive
            alive = stay @ alive
        np.testing.assert_allclose(got[k, :, 0], steps, rtol=1e-3)


def test_apartness_is_low_on_the_border() -> None:
    seen = measured(2)
    seen.lab[:] = 20.0
    seen.texture[:] = 0
    inner = torch.zeros(COUNT, dtype=torch.bool)
    inner[[6, 7, 8, 11, 12, 13, 16, 17, 18]] = True
    seen.lab[:, inner] = 70.0
    _, _, inverse = cell_priors.ranking(cell_priors.link_weights(seen), seen.graph)
    apart = cell_priors.apartness(inverse, seen.graph)[..., 0]
    assert apart[:, inner].min() > 0.8 > 0.2 > apart[:, ~inner].max()


def test_background_solves_its_equations() -> None:
    """The least squares problem (eq. 9) has its minimum at the map, up to stretching."""
    seen, apart = measured(3), torch.rand(2, COUNT, 1)
    got = cell_priors.background(seen, apart)[..., 0].double().numpy()
    for k, look in enumerate(looks(seen)):
        distance = np.linalg.norm(look[:, None] - look, axis=2)
        yx = seen.yx[k].double().numpy()
        place = np.exp(-((yx[:, None] - yx) ** 2).sum(axis=2) / (2 * 0.4**2))
        behind = 1 - apart[k, :, 0].double().numpy()
        contrast = stretch((distance * place) @ behind).astype(np.float64)
        contrast[contrast <= best_split(contrast)] = 0
        alike = np.exp(-(distance**2) / 200) * (distance < 30) * seen.graph.near.numpy()
        smooth = alike + 0.1 * seen.graph.touch.numpy()
        pairs, right = [], []
        for i, j in zip(*np.nonzero(np.triu(smooth)), strict=True):
            row = np.zeros(COUNT)
            row[i], row[j] = np.sqrt(smooth[i, j]), -np.sqrt(smooth[i, j])
            pairs.append(row)
            right.append(0.0)
        for pull, aim in ((5 * behind, 0.0), (contrast, 1.0)):
            pairs.extend(np.diag(np.sqrt(pull)))
            right.extend(np.sqrt(pull) * aim)
        want = np.linalg.lstsq(np.array(pairs), np.array(right), rcond=None)[0]
        np.testing.assert_allclose(got[k], stretch(want), atol=2e-3)


def best_split(values: np.ndarray) -> float:
    """Otsu's threshold by trying every value."""
    ordered = np.sort(values)
    scores = []
    for count in range(1, len(ordered)):
        low, high = ordered[:count], ordered[count:]
        scores.append(len(low) * len(high) * (high.mean() - low.mean()) ** 2)
    return float(ordered[int(np.argmax(scores))])


def test_dense_error_is_that_of_the_prior() -> None:
    seen = measured(4)
    border = seen.features[:, seen.graph.border > 0]
    got = cell_priors._dense_error(seen.features, border)[..., 0]
    for k in range(2):
        features, edge = seen.features[k].double().numpy(), border[k].double().numpy()
        want = dense_sparse_reconstruction.dense_error(features, edge)
        np.testing.assert_allclose(got[k], want, atol=1e-5)


def test_likelihood_is_the_ratio_of_densities() -> None:
    seen, front = measured(5), torch.rand(2, COUNT, 1)
    got = cell_priors.likelihood(seen, front)
    for k in range(2):
        for i in range(COUNT):
            on = off = on_total = off_total = 0.0
            for j in range(COUNT):
                mass = float(front[k, j, 0] * seen.size[k, j, 0])
                rest = float((1 - front[k, j, 0]) * seen.size[k, j, 0])
                on_total, off_total = on_total + mass, off_total + rest
                if i == j:
                    continue
                away = ((seen.lab[k, i] - seen.lab[k, j]) / 6).square().sum()
                away += ((seen.texture[k, i] - seen.texture[k, j]) / 13).square().sum()
                away += ((seen.yx[k, i] - seen.yx[k, j]) / 0.5).square().sum()
                near = float(torch.exp(-away / 2))
                on, off = on + near * mass, off + near * rest
            on, off = on / on_total, off / off_total
            want = on / (on + off) if on + off > 1e-12 else 0.0
            assert abs(float(got[k, i, 0]) - want) < 1e-2 or on + off < 1e-10


def test_bayes_agrees_with_counting() -> None:
    prior = torch.tensor([[[0.9], [0.8], [0.2], [0.1]]])
    observed = torch.tensor([[[0.99], [0.01], [0.01], [0.01]]])
    got = cell_priors.bayes(prior, observed)[0, :, 0]
    # Low observations: half of the front, all of the rest.
    want = [1.0, 0.8 * 0.5 / (0.8 * 0.5 + 0.2), 0.2 * 0.5 / (0.2 * 0.5 + 0.8)]
    np.testing.assert_allclose(got[:3], want, atol=1e-6)


def square_scene() -> torch.Tensor:
    rgb = torch.full((1, 3, 128, 128), 0.3)
    rgb[:, 0, 40:90, 30:80] = 0.9
    return rgb


def test_cues_find_a_square() -> None:
    rgb = square_scene()
    cues = cell_cues(rgb, rgb_to_lab(rgb), 16)[0]
    assert cues.shape == (CHANNELS, 128, 128)
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[40:90, 30:80] = True
    for k in (4, 7, 9, 11):
        assert cues[k][inside].mean() > 0.8 > 0.2 > cues[k][~inside].mean()


def test_cues_are_finite_and_in_range() -> None:
    noise = torch.rand(1, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    for rgb in (torch.zeros(2, 3, 128, 128), torch.ones(1, 3, 40, 64), noise):
        cues = cell_cues(rgb, rgb_to_lab(rgb), 8)
        assert torch.isfinite(cues).all() and cues.min() >= 0 and cues.max() <= 1


def test_a_mirrored_picture_has_mirrored_cues() -> None:
    rgb = square_scene()
    left, right = (cell_cues(p, rgb_to_lab(p), 16) for p in (rgb, rgb.flip(3)))
    torch.testing.assert_close(right.flip(3)[:, 4:], left[:, 4:], rtol=0, atol=2e-2)


def test_two_threads_find_the_same() -> None:
    """Inverting several matrices at once on two threads is where a torch release fails."""
    rgb = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before, lab = torch.get_num_threads(), rgb_to_lab(rgb)
    try:
        torch.set_num_threads(1)
        one = cell_cues(rgb, lab, 8)
        torch.set_num_threads(2)
        two = cell_cues(rgb, lab, 8)
    finally:
        torch.set_num_threads(before)
    assert ((two - one).abs() < 1e-3).float().mean() > 0.99
