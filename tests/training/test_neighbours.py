"""AdaSim's memory and pairs: golden vectors, loops, and what a whole epoch does."""

from __future__ import annotations

import loss_oracles as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.training import neighbours, pairing
from fovea.training.method import DataFacts, Progress
from fovea.training.neighbours import ABSENT, NeighbourMemory


def filled(cache, top_k, window):
    memory = NeighbourMemory(*cache.shape, top_k=top_k, window=window, dtype=torch.float64)
    memory.cache.copy_(torch.from_numpy(cache))
    memory.seen.fill_(True)
    return memory


def test_cache_neighbours_and_window_golden(golden):
    """As the released code, but for images that an epoch left out: their rows are absent here,
    where the code pushes their last row once more."""
    v = np.load(golden("10a_adasim_state"))
    top_k, window, per_epoch = int(v["K"]), int(v["w"]), int(v["batches_per_epoch"])
    memory = filled(v["cache0"], top_k, window)
    visited = np.zeros((0, 20), bool)
    for batch in range(len(v["ids"])):
        ids = torch.from_numpy(v["ids"][batch])
        features = torch.from_numpy(v["teacher_feats"][batch])[: len(ids)]
        found = memory.look_and_write(ids, features)
        np.testing.assert_array_equal(found, v["topk_ids"][batch])
        similarities = memory.similarities[ids]
        np.testing.assert_allclose(similarities, v["topk_sims"][batch], atol=1e-12)
        np.testing.assert_allclose(memory.cache, v["cache_after"][batch], atol=1e-12)
        if (batch + 1) % per_epoch == 0:
            epoch = batch // per_epoch
            seen = np.isin(np.arange(20), v["ids"][batch + 1 - per_epoch : batch + 1])
            visited = np.vstack([visited, seen])
            memory.end_epoch()
            for place in range(window):
                of_epoch = epoch - (window - 1 - place)
                mine = memory.window_ids[place].numpy()
                if of_epoch < 0:
                    assert (mine == ABSENT).all()
                    continue
                rows = visited[of_epoch]
                np.testing.assert_array_equal(mine[rows], v["window_ids"][epoch][rows, place])
                np.testing.assert_allclose(
                    memory.window_similarities[place].numpy()[rows],
                    v["window_sims"][epoch][rows, place],
                    atol=1e-12,
                )
                assert (mine[~rows] == ABSENT).all()


def test_pair_probabilities_golden(golden):
    v = np.load(golden("10b_adasim_pairs"))
    window, top_k = int(v["w"]), int(v["K"])
    ids = torch.from_numpy(v["window_ids"]).flatten(1)
    similarities = torch.from_numpy(v["window_sims"]).double().flatten(1)
    names, mean = neighbours.window_sums(ids, similarities, window)
    np.testing.assert_array_equal(names[:, 0], v["argmax_id"])
    np.testing.assert_array_equal(names[:, 0] == torch.from_numpy(v["index"]), v["self_is_argmax"])
    for row, wanted in enumerate(v["union_ids"]):
        count = int((wanted >= 0).sum())
        np.testing.assert_array_equal(names[row, :count], wanted[:count])
        assert (names[row, count:] == ABSENT).all()
        np.testing.assert_allclose(mean[row, :count], v["m_win"][row, :count], atol=1e-10)
    for t, temp in enumerate(v["taus"]):
        for only_best, key, width in ((0, "p_union", v["p_union"].shape[2]), (top_k, "p_topk", 3)):
            chance = neighbours.pair_probabilities(mean, float(temp), only_best)[:, :width]
            wanted = np.nan_to_num(v[key][:, t])
            np.testing.assert_allclose(chance, wanted, atol=1e-10)
    drawing = v["code_draws"]
    for t, temp in enumerate(v["taus"]):
        chance = neighbours.pair_probabilities(mean, float(temp), top_k)[:, :top_k].numpy()
        code = np.nan_to_num(v["code_probs_f32"][:, t])
        order = np.argsort(-code[drawing], axis=1, kind="stable")
        np.testing.assert_allclose(
            np.sort(chance[drawing])[:, ::-1],
            np.take_along_axis(code[drawing], order, axis=1),
            atol=2e-6,
        )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    window=st.integers(1, 4),
    top_k=st.integers(1, 4),
    temp=st.sampled_from([0.05, 0.2, 1.0]),
)
def test_pair_probabilities_agree_with_a_dictionary(seed, window, top_k, temp):
    random = np.random.default_rng(seed)
    ids = random.integers(0, 5, size=(3, window, top_k))
    similarities = random.random((3, window, top_k))
    names, mean = neighbours.window_sums(
        torch.from_numpy(ids).flatten(1), torch.from_numpy(similarities).flatten(1), window
    )
    chance = neighbours.pair_probabilities(mean, temp)
    for row in range(3):
        wanted = oracle.pair_probabilities(ids[row], similarities[row], window, temp)
        found = {
            int(n): float(p) for n, p in zip(names[row], chance[row], strict=True) if n != ABSENT
        }
        assert found.keys() == wanted.keys()
        for name, share in wanted.items():
            assert found[name] == pytest.approx(share, abs=1e-12)
        assert list(mean[row]) == sorted(mean[row], reverse=True)


def test_draws_follow_the_probabilities():
    """One image 40,000 times over: frequencies within 5 sigma of softmax(mean / temp)."""
    count = 40_000
    ids = torch.tensor([[7, 3, 5, 7]]).expand(count, 4)
    similarities = torch.tensor([[1.0, 0.6, 0.5, 0.8]]).expand(count, 4)
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = torch.full((count,), 7)
    drawn = neighbours.draw_partners(images, ids, similarities, uniform, window=2, temp=0.5)
    means = torch.tensor([1.8, 0.6, 0.5]) / 2
    wanted = torch.softmax(means / 0.5, dim=0)
    for name, share in zip((7, 3, 5), wanted.tolist(), strict=True):
        sigma = (count * share * (1 - share)) ** 0.5
        assert abs(int((drawn == name).sum()) - count * share) < 5 * sigma
    nothing = neighbours.draw_partners(
        images[:3], torch.full((3, 4), ABSENT), torch.zeros(3, 4), uniform[:3], window=2, temp=0.5
    )
    assert nothing.tolist() == [7, 7, 7]
    stranger = neighbours.draw_partners(
        torch.tensor([3]), ids[:1], similarities[:1], uniform[:1], window=2, temp=0.5
    )
    assert stranger.tolist() == [3]  # its best is another image: it is paired with itself


def test_tiny_temperature_pairs_every_image_with_itself():
    random = torch.Generator().manual_seed(0)
    images = torch.arange(50)
    ids = torch.randint(0, 50, (50, 6), generator=random)
    similarities = torch.rand(50, 6, generator=random) * 0.9
    ids[:, 0], similarities[:, 0] = images, 1.0
    uniform = torch.rand(50, generator=random, dtype=torch.float64)
    drawn = neighbours.draw_partners(images, ids, similarities, uniform, window=1, temp=1e-4)
    assert torch.equal(drawn, images)


def test_nearest_in_blocks_is_nearest_at_once(monkeypatch):
    random = torch.Generator().manual_seed(0)
    cache = F.normalize(torch.randn(37, 8, generator=random), dim=1)
    seen = torch.ones(37, dtype=torch.bool)
    seen[[5, 20]] = False
    queries = F.normalize(torch.randn(6, 8, generator=random), dim=1)
    similarity = queries @ cache.T
    similarity[:, [5, 20]] = -torch.inf
    wanted = similarity.topk(4, dim=1)
    for rows in (5, 16, 1000):
        monkeypatch.setattr(neighbours, "CACHE_ROWS", rows)
        ids, values = neighbours.nearest(queries, cache, seen, 4)
        assert torch.equal(ids, wanted.indices)
        torch.testing.assert_close(values, wanted.values)
    ids, values = neighbours.nearest(queries, cache[:3], torch.zeros(3, dtype=torch.bool), 3)
    assert (ids == ABSENT).all() and (values == 0).all()


def test_half_precision_rows_are_converted_piece_by_piece(monkeypatch):
    random = torch.Generator().manual_seed(0)
    queries, rows = torch.randn(5, 8, generator=random), torch.randn(37, 8, generator=random)
    for size in (4, 37, 1000):
        monkeypatch.setattr(neighbours, "CONVERTED_ROWS", size)
        found = neighbours.products(queries, rows.half())
        torch.testing.assert_close(found, queries @ rows.half().float().T)


def facts(labels):
    labels = np.asarray(labels, np.int64)
    return DataFacts(len(labels), int(labels.max()) + 1, labels)


def at(epoch, per_epoch=2):
    return Progress(epoch * per_epoch, 8 * per_epoch, per_epoch, seed=1)


def run_epoch(pair, epoch, features, order):
    """Two steps that visit all images; features (N, D) are those of view 0."""
    half = len(order) // 2
    for step, ids in enumerate((order[:half], order[half:])):
        pair.saw(ids, features[ids])
        pair.after_step(Progress(2 * epoch + step + 1, 16, 2, seed=1))


def test_pairing_finds_the_clusters_of_its_features():
    """Two tight clusters: once the window is full, partners come from the own cluster."""
    labels = [0, 1] * 8
    config = pairing.PairingConfig(window=2, top_k=4, pair_temp=0.5)
    pair = pairing.Pairing(config, 4, facts(labels))
    random = torch.Generator().manual_seed(0)
    images = torch.eye(4)[torch.tensor(labels)] + 0.2 * torch.randn(16, 4, generator=random)
    for epoch in range(4):
        partners = pair.partner_ids(at(epoch))
        if epoch < 2:
            assert torch.equal(partners, torch.arange(16))
        features = images + 0.01 * torch.randn(16, 4, generator=random)
        run_epoch(pair, epoch, features, torch.randperm(16, generator=random))
    partners = pair.partner_ids(at(4))
    same = torch.tensor(labels)[partners] == torch.tensor(labels)
    assert same.all() and (partners != torch.arange(16)).any()
    assert torch.equal(pair.agreement, torch.ones(2))
    assert torch.equal(pair.partner_ids(at(4)), partners)


def test_nearest_never_is_the_image_itself():
    config = pairing.PairingConfig(pairing="nearest", window=1, top_k=2)
    pair = pairing.Pairing(config, 3, facts([0] * 8))
    random = torch.Generator().manual_seed(0)
    assert torch.equal(pair.partner_ids(at(0)), torch.arange(8))
    features = torch.randn(8, 3, generator=random)
    for epoch in range(2):
        run_epoch(pair, epoch, features, torch.arange(8))
    partners = pair.partner_ids(at(2))
    unit = F.normalize(features, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    assert torch.equal(partners, cosine.argmax(dim=1))


def test_oracle_pairs_within_the_class_more_and_more():
    labels = torch.arange(3000) % 3
    config = pairing.PairingConfig(pairing="oracle", own_share=0.5)
    pair = pairing.Pairing(config, 3, facts(labels.numpy()))
    first, last = pair.partner_ids(at(0)), pair.partner_ids(at(8))
    assert torch.equal(first, torch.arange(3000))
    assert torch.equal(labels[last], labels)
    other = (last != torch.arange(3000)).float().mean().item()
    assert other == pytest.approx(0.5 * 999 / 1000, abs=5 * (0.25 / 3000) ** 0.5)


def test_memory_survives_a_file(tmp_path):
    memory = NeighbourMemory(6, 3, top_k=2, window=2)
    memory.look_and_write(torch.arange(6), torch.randn(6, 3))
    memory.end_epoch()
    memory.look_and_write(torch.arange(3), torch.randn(3, 3))
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    other = NeighbourMemory(6, 3, top_k=2, window=2)
    other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    assert torch.equal(other.cache, memory.cache)
    for name, value in memory.get_extra_state().items():
        assert torch.equal(other.get_extra_state()[name], value), name


def test_curves_count_the_image_itself_as_figure_3_does():
    """By hand: images 0 to 3 of classes 0 0 1 1; the last has found nothing yet."""
    found = torch.tensor([[0, 1, 2], [0, 2, 1], [2, 0, 3], [ABSENT] * 3])
    share = pairing.agreement(torch.arange(4), found, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(share, torch.tensor([3 / 3, 1 / 3]))
