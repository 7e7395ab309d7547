"""Losses against golden vectors (value and gradient) and against loops."""

from __future__ import annotations

import loss_oracles as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.training.methods import (
    byol,
    dino,
    isd,
    mocov2,
    nnclr,
    relicv2,
    ressl,
    simclr,
    simsiam,
    swav,
)

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


class Vectors:
    """A golden file: arrays as float64 tensors, `leaf` ones with gradient."""

    def __init__(self, path):
        self.file = np.load(path)

    def __getitem__(self, name):
        return torch.from_numpy(np.asarray(self.file[name]))

    def leaf(self, name):
        return self[name].clone().requires_grad_(True)

    def number(self, name):
        return self.file[name].item()


@pytest.fixture
def vectors(golden):
    return lambda name: Vectors(golden(name))


def agrees(loss, wanted, *pairs):
    """`loss` and, for (leaf, wanted gradient) pairs, its gradients agree to 1e-10."""
    torch.testing.assert_close(loss.detach(), wanted, **TIGHT)
    loss.backward()
    for leaf, gradient in pairs:
        torch.testing.assert_close(leaf.grad, gradient, **TIGHT)


def relation(v, q):
    target = ressl.relation_target(v["k"], v["queue"], v.number("tau_t"))
    return ressl.relation_loss(q, target, v["queue"], v.number("tau_s"))


def test_ressl(vectors):
    v = vectors("01_ressl_loss")
    q, multi = v.leaf("q"), v.leaf("q_multi")
    target = ressl.relation_target(v["k"], v["queue"], v.number("tau_t"))
    torch.testing.assert_close(target, v["p_target"], **TIGHT)
    agrees(relation(v, q), v["loss"], (q, v["grad_q"]))
    agrees(relation(v, multi), v["loss_multi"], (multi, v["grad_q_multi"]))


def test_ressl_with_infonce(vectors):
    v = vectors("02_ressl_infonce")
    q, again = v.leaf("q"), v.leaf("q")
    tau, alpha = v.number("tau_c"), v.number("alpha")
    agrees(
        mocov2.infonce_loss(q, v["k"], v["queue"], tau),
        v["loss_infonce"],
        (q, v["grad_q_infonce"]),
    )
    mix = alpha * relation(v, again)
    mix = mix + (1 - alpha) * mocov2.infonce_loss(again, v["k"], v["queue"], tau)
    agrees(mix, v["loss_total"], (again, v["grad_q_total"]))
    warmup = v.number("alpha_warmup")
    for step, weight in zip(v["alpha_steps"], v["alpha_values"], strict=True):
        assert ressl.relation_weight(float(step), warmup) == pytest.approx(float(weight))


def test_isd(vectors):
    v = vectors("03_isd_loss")
    q = v.leaf("q")
    loss = isd.similarity_loss(
        q,
        v["k"],
        v["queue"],
        student_temp=v.number("T_s"),
        teacher_temp=v.number("T_t"),
    )
    agrees(loss, v["loss"], (q, v["grad_q"]))


def test_byol(vectors):
    v = vectors("06_byol_loss")
    p1 = v.leaf("p1")
    agrees(byol.regression_loss(p1, v["z2"]), v["loss_12"], (p1, v["grad_p1_12"]))
    p1, p2 = v.leaf("p1"), v.leaf("p2")
    loss = byol.regression_loss(p1, v["z2"]) + byol.regression_loss(p2, v["z1"])
    agrees(loss, v["loss_sym"], (p1, v["grad_p1"]), (p2, v["grad_p2"]))


def test_simsiam(vectors):
    v = vectors("07_simsiam_loss")
    p1, p2 = v.leaf("p1"), v.leaf("p2")
    loss = simsiam.negative_cosine((p1, p2), (v["z1"], v["z2"]))
    agrees(loss, v["loss"], (p1, v["grad_p1"]), (p2, v["grad_p2"]))


def cross_view(v, student, teacher, views, teacher_temp=None):
    shaped = student.unflatten(0, (views, -1))
    return dino.cross_view_loss(
        shaped,
        teacher.unflatten(0, (2, -1)),
        v["centre0"],
        student_temp=v.number("T_s"),
        teacher_temp=teacher_temp or v.number("T_t"),
    )


@pytest.mark.parametrize("name", ["08_dino_loss", "09_adasim_loss"])
def test_dino_and_adasim(vectors, name):
    v = vectors(name)
    student = v.leaf("student")
    agrees(cross_view(v, student, v["teacher"][0], 2), v["loss"], (student, v["grad_student"]))


def test_dino_multi_crop_and_temperature(vectors):
    v = vectors("08_dino_loss")
    student = v.leaf("student_multi")
    loss = cross_view(v, student, v["teacher_multi"], 4)
    agrees(loss, v["loss_multi"], (student, v["grad_student_multi"]))
    for epoch, wanted in enumerate(v["T_t_schedule"]):
        temp = dino.teacher_temperature(
            epoch, v.number("warmup_T"), v.number("T_t"), v.number("warmup_epochs")
        )
        assert temp == pytest.approx(float(wanted), abs=1e-12)
        loss = cross_view(v, v["student"], v["teacher"][0], 2, temp)
        torch.testing.assert_close(loss, v["loss_by_epoch"][epoch], **TIGHT)


def test_relicv2_pair(vectors):
    v = vectors("11b_relicv2_pair")
    for place, wanted, gradient in (
        (0, "nll", "grad_nll_o_t"),
        (1, "kl_swap", "grad_kl_swap_sgp_o_t"),
    ):
        online = v.leaf("o_t")
        terms = relicv2.pair_terms(online, v["t_tp"], v["neg_idx"], v.number("tau"))
        torch.testing.assert_close(terms[place].detach(), v[wanted], **TIGHT)
        terms[place].mean().backward()
        torch.testing.assert_close(online.grad, v[gradient], **TIGHT)


@pytest.mark.parametrize("own", [True, False])
def test_relicv2_all_views(vectors, own):
    v = vectors("11c_relicv2_multiview")
    online, large = v.leaf("online"), v.number("num_large")
    terms = []
    for i in range(len(online)):
        for j in range(large):
            if own or i != j:
                contrast, invariance = relicv2.pair_terms(
                    online[i], v["target"][j], v["neg_idx"][i, j], v.number("tau")
                )
                weighted = v.number("contrast_scale") * contrast + v.number("beta") * invariance
                terms.append(weighted.mean())
    name = "incl" if own else "excl"
    wanted = v[f"loss_{name}_swap"], v[f"grad_{name}_swap_sgp"]
    agrees(torch.stack(terms).mean(), wanted[0], (online, wanted[1]))


def test_nnclr(vectors):
    v = vectors("12_nnclr_loss")
    torch.testing.assert_close(nnclr.nearest(v["z1"], v["queue"]), v["nn1"], rtol=0, atol=0)
    p1, p2, temp = v.leaf("p1"), v.leaf("p2"), v.number("temperature")
    loss = (nnclr.neighbour_loss(v["nn1"], p2, temp) + nnclr.neighbour_loss(v["nn2"], p1, temp)) / 2
    agrees(loss, v["loss_sym"], (p1, v["grad_p1"]), (p2, v["grad_p2"]))


def test_mocov2(vectors):
    v = vectors("13_mocov2_step")
    raw = v.leaf("q_raw")
    key = F.normalize(v["k_raw"], dim=1)
    loss = mocov2.infonce_loss(F.normalize(raw, dim=1), key, v["queue"], v.number("T"))
    agrees(loss, v["loss"], (raw, v["grad_q_raw"]))


def test_simclr(vectors):
    v = vectors("14_simclr_ntxent")
    z1, z2 = v.leaf("z1"), v.leaf("z2")
    loss = simclr.nt_xent(z1, z2, v.number("temperature"))
    agrees(loss, v["loss"], (z1, v["grad_z1"]), (z2, v["grad_z2"]))


def test_swav(vectors):
    v = vectors("17_sinkhorn_swav")
    eps, iters, scores = v.number("eps"), v.number("iters"), v.leaf("scores")
    q = torch.stack([swav.sinkhorn(s, eps, iters) for s in scores.detach()[:2]])
    torch.testing.assert_close(q, v["Q"], **TIGHT)
    torch.testing.assert_close(swav.sinkhorn(v["scores"][0], eps, 1), v["Q_1iter"], **TIGHT)
    torch.testing.assert_close(swav.sinkhorn(v["scores"][0], eps, 50), v["Q_50iter"], **TIGHT)
    loss = swav.swapped_loss(scores, q, v.number("temperature"))
    agrees(loss, v["loss"], (scores, v["grad_scores"]))


def rows(random, *shape, unit=False):
    values = torch.randn(*shape, generator=random, dtype=torch.float64)
    return F.normalize(values, dim=-1) if unit else values


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.integers(2, 5), width=st.integers(2, 6))
def test_losses_agree_with_loops(seed, batch, width):
    random = torch.Generator().manual_seed(seed)
    q, k = rows(random, batch, width, unit=True), rows(random, batch, width, unit=True)
    queue = rows(random, 7, width, unit=True)
    target = ressl.relation_target(k, queue, 0.07)
    found = {
        "relation": ressl.relation_loss(q, target, queue, 0.2),
        "similarity": isd.similarity_loss(q, k, queue, student_temp=0.2, teacher_temp=0.07),
        "infonce": mocov2.infonce_loss(q, k, queue, 0.15),
        "nt_xent": simclr.nt_xent(q * 2, k * 3, 0.5),
        "neighbour": nnclr.neighbour_loss(q * 2, k * 3, 0.3),
    }
    wanted = {
        "relation": oracle.relation(q, k, queue, 0.2, 0.07),
        "similarity": oracle.similarity(q, k, queue, 0.2, 0.07),
        "infonce": oracle.infonce(q, k, queue, 0.15),
        "nt_xent": oracle.nt_xent(q * 2, k * 3, 0.5),
        "neighbour": oracle.neighbour(q * 2, k * 3, 0.3),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(wanted[name], rel=1e-9, abs=1e-12), name


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.integers(3, 5))
def test_dino_relic_and_sinkhorn_agree_with_loops(seed, batch):
    random = torch.Generator().manual_seed(seed)
    student, teacher = rows(random, 3, batch, 4), rows(random, 2, batch, 4)
    centre = rows(random, 1, 4)
    loss = dino.cross_view_loss(student, teacher, centre, student_temp=0.3, teacher_temp=0.2)
    assert loss.item() == pytest.approx(oracle.cross_view(student, teacher, centre[0], 0.3, 0.2))
    chosen = relicv2.draw_negatives(batch, 2, random)
    terms = relicv2.pair_terms(student[0], teacher[0], chosen, 0.2)
    wanted = oracle.relic_pair(student[0], teacher[0], chosen.tolist(), 0.2)
    np.testing.assert_allclose(terms[0], wanted[0], rtol=1e-9)
    np.testing.assert_allclose(terms[1], wanted[1], rtol=1e-9, atol=1e-12)
    q = swav.sinkhorn(student[0], 0.5, 3)
    np.testing.assert_allclose(q, oracle.sinkhorn(student[0].numpy(), 0.5, 3), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 12), data=st.data())
def test_negatives_are_others_without_repeats(seed, count, data):
    negatives = data.draw(st.integers(0, count - 1))
    drawn = relicv2.draw_negatives(count, negatives, torch.Generator().manual_seed(seed))
    assert drawn.shape == (count, negatives or count - 1)
    for i, row in enumerate(drawn.tolist()):
        assert i not in row and len(set(row)) == len(row) and all(0 <= j < count for j in row)


def test_negatives_are_uniform():
    """40,000 draws of 2 from 4 others: each other is picked in half of them (5 sigma)."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.stack([relicv2.draw_negatives(5, 2, random) for _ in range(8000)])
    for i in range(5):
        counts = drawn[:, i].flatten().bincount(minlength=5)
        others = counts[torch.arange(5) != i]
        assert (others - 4000).abs().max() < 5 * (8000 * 0.5 * 0.5) ** 0.5


def test_losses_do_not_see_a_common_permutation_or_rotation():
    """Relations are of pairs: permuting images together or turning all embeddings is no change."""
    random = torch.Generator().manual_seed(1)
    q, k = rows(random, 6, 5, unit=True), rows(random, 6, 5, unit=True)
    queue = rows(random, 9, 5, unit=True)
    turn, _ = torch.linalg.qr(rows(random, 5, 5))
    order = torch.randperm(6, generator=random)

    def losses(q, k, queue):
        target = ressl.relation_target(k, queue, 0.05)
        return torch.stack(
            [
                ressl.relation_loss(q, target, queue, 0.1),
                mocov2.infonce_loss(q, k, queue, 0.1),
                simclr.nt_xent(q, k, 0.1),
                nnclr.neighbour_loss(q, k, 0.1),
                byol.regression_loss(q, k),
            ]
        )

    torch.testing.assert_close(losses(q[order], k[order], queue), losses(q, k, queue))
    torch.testing.assert_close(losses(q @ turn, k @ turn, queue @ turn), losses(q, k, queue))
    torch.testing.assert_close(losses(q, k, queue[torch.randperm(9)]), losses(q, k, queue))
