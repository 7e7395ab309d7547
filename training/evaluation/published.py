"""Figures of the papers, to stand beside ours: top-1 shares in [0, 1], by preset and protocol.

Only rows that a preset of ours sets out to reproduce; the source is in `cite`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of a paper's table."""

    protocol: str  # as in eval/PROTOCOL.json
    metrics: dict[str, float]
    cite: str


RESSL = "ReSSL (arXiv:2203.08717)"
RESSL_V1 = "ReSSL, first version (arXiv:2107.09282)"
ISD = "ISD (arXiv:2012.09259)"
ADASIM = "AdaSim (arXiv:2303.13606)"
RELICV2 = "ReLICv2 (arXiv:2201.05119)"


def _linear(top1: float, cite: str, top5: float | None = None) -> Published:
    return Published("linear", {"top1": top1} | ({"top5": top5} if top5 else {}), cite)


def _isd(linear: float, knn1: float, knn20: float) -> tuple[Published, ...]:
    """ISD's neighbours have a vote each, those of AdaSim and DINO are weighted."""
    knn = Published("knn", {"knn1": knn1, "knn20_plain": knn20}, f"{ISD}, table 1")
    return (knn, _linear(linear, f"{ISD}, table 1"))


def _adasim(knn20: float, linear: float) -> tuple[Published, ...]:
    knn = Published("knn", {"knn20": knn20}, f"{ADASIM}, table 2")
    return (knn, _linear(linear, f"{ADASIM}, table 2"))


_LOWSHOT = {"k=4": 0.668, "k=8": 0.753, "k=16": 0.805, "k=32": 0.838, "k=64": 0.860, "full": 0.886}
_TRANSFER = {
    "cifar10": 0.938, "cifar100": 0.785, "food101": 0.772, "cars": 0.683, "dtd": 0.766,
    "pets": 0.907, "flowers": 0.948, "aircraft": 0.651, "caltech101": 0.945,
}  # fmt: skip
_RELICV2_TRANSFER = {
    "food101": 0.806, "cifar10": 0.928, "cifar100": 0.782, "birdsnap": 0.654, "sun397": 0.662,
    "cars": 0.751, "aircraft": 0.648, "dtd": 0.774, "pets": 0.924, "caltech101": 0.928,
    "flowers": 0.956,
}  # fmt: skip
_PER_CLASS = ("pets", "flowers", "aircraft", "caltech101")
_CORRUPTED = {
    "gaussian_noise": 0.416, "shot_noise": 0.390, "impulse_noise": 0.311, "defocus_blur": 0.397,
    "glass_blur": 0.226, "motion_blur": 0.352, "zoom_blur": 0.345, "snow": 0.401, "frost": 0.461,
    "fog": 0.645, "brightness": 0.710, "contrast": 0.600, "elastic_transform": 0.446,
    "pixelate": 0.466, "jpeg_compression": 0.584,
}  # fmt: skip


def _transfer(table: dict[str, float], cite: str) -> tuple[Published, ...]:
    return tuple(
        Published(
            f"transfer-{name}", {"mean_per_class" if name in _PER_CLASS else "top1": share}, cite
        )
        for name, share in table.items()
    )


ROWS: dict[str, tuple[Published, ...]] = {
    "ressl_cifar10": (_linear(0.9076, RESSL),),
    "ressl_cifar100": (_linear(0.6503, RESSL),),
    "ressl_cifar100_warmup": (_linear(0.6533, RESSL),),
    "ressl_stl10": (_linear(0.8889, RESSL),),
    "ressl_stl10_warmup": (_linear(0.9000, RESSL),),
    "ressl_tinyimagenet": (_linear(0.4664, RESSL),),
    "ressl_tinyimagenet_warmup": (_linear(0.4822, RESSL),),
    "ressl_r18": (_linear(0.624, f"{RESSL}, table 13"),),
    "ressl_r18_2crops": (_linear(0.638, f"{RESSL}, table 13"),),
    "ressl_r18_multi": (_linear(0.665, f"{RESSL}, table 13"),),
    "ressl_r34": (_linear(0.663, f"{RESSL}, table 13"),),
    "ressl_r34_2crops": (_linear(0.684, f"{RESSL}, table 13"),),
    "ressl_r34_multi": (_linear(0.710, f"{RESSL}, table 13"),),
    "ressl_efficientnet_b0": (_linear(0.697, f"{RESSL}, table 13"),),
    "ressl_efficientnet_b0_2crops": (_linear(0.709, f"{RESSL}, table 13"),),
    "ressl_efficientnet_b0_multi": (_linear(0.722, f"{RESSL}, table 13"),),
    "ressl_efficientnet_b1": (_linear(0.711, f"{RESSL}, table 13"),),
    "ressl_efficientnet_b1_2crops": (_linear(0.731, f"{RESSL}, table 13"),),
    "ressl_efficientnet_b1_multi": (_linear(0.746, f"{RESSL}, table 13"),),
    "ressl_mobilenet_v3_large": (_linear(0.647, f"{RESSL}, table 13"),),
    "ressl_mobilenet_v3_large_2crops": (_linear(0.666, f"{RESSL}, table 13"),),
    "ressl_mobilenet_v3_large_multi": (_linear(0.682, f"{RESSL}, table 13"),),
    "ressl_r50": (
        _linear(0.720, f"{RESSL}, table 7"),
        Published("lowshot", _LOWSHOT, f"{RESSL}, table 11, VOC07"),
        *_transfer(_TRANSFER, f"{RESSL}, table 9"),
    ),
    "ressl_r50_2crops": (_linear(0.732, f"{RESSL}, table 7"),),
    "ressl_r50_multi": (_linear(0.760, f"{RESSL}, table 8"),),
    "ressl_r50_strong": (_linear(0.763, f"{RESSL}, table 8"),),
    "ressl_v1_r50": (_linear(0.699, RESSL_V1),),
    "ressl_v1_r50_2crops": (_linear(0.714, RESSL_V1),),
    "ressl_v1_r50_multi": (_linear(0.747, RESSL_V1),),
    "isd_r50": _isd(0.698, 0.592, 0.620),
    "isd_r18": _isd(0.538, 0.415, 0.466),
    "byol_asym_r50": _isd(0.693, 0.550, 0.592),
    "byol_asym_r18": _isd(0.526, 0.400, 0.448),
    "mocov2_r18": _isd(0.510, 0.377, 0.421),
    "adasim_vits16": _adasim(0.701, 0.733),
    "adasim_vitb16": _adasim(0.727, 0.750),
    "adasim_r50": _adasim(0.507, 0.601),
    "adasim_simsiam_r50": _adasim(0.579, 0.681),
    "simsiam_r50": _adasim(0.571, 0.680),
    "dino2_vits16": _adasim(0.684, 0.719),
    "dino2_vitb16": _adasim(0.692, 0.735),
    "dino2_r50": _adasim(0.502, 0.600),
    "relicv2_r50": (
        _linear(0.771, f"{RELICV2}, table 1", top5=0.933),
        Published(
            "semisup",
            {"top1_1%": 0.581, "top5_1%": 0.813, "top1_10%": 0.724, "top5_10%": 0.912},
            f"{RELICV2}, table 2",
        ),
        Published("robustness", _CORRUPTED, f"{RELICV2}, table 9"),
        *_transfer(_RELICV2_TRANSFER, f"{RELICV2}, table 7"),
    ),
    "relicv2_r50_w2": (_linear(0.790, f"{RELICV2}, table 5", top5=0.945),),
    "relicv2_r50_w4": (_linear(0.794, f"{RELICV2}, table 5", top5=0.943),),
    "relicv2_r101": (_linear(0.787, f"{RELICV2}, table 5", top5=0.944),),
    "relicv2_r152": (_linear(0.793, f"{RELICV2}, table 5", top5=0.946),),
    "relicv2_r200": (_linear(0.798, f"{RELICV2}, table 5", top5=0.950),),
    "relicv2_r200_w2": (_linear(0.806, f"{RELICV2}, table 5", top5=0.952),),
    "relicv2_r50_300": (_linear(0.754, f"{RELICV2}, table 15"),),
    "relicv2_r50_300_nomask": (_linear(0.752, f"{RELICV2}, table 15"),),
    "relicv2_r50_2_0": (_linear(0.748, f"{RELICV2}, section G.4"),),
    "relicv2_r50_2_2": (_linear(0.762, f"{RELICV2}, section G.4"),),
    "relicv2_r50_4_0": (_linear(0.755, f"{RELICV2}, section G.4"),),
    "relicv2_r50_2_6": (_linear(0.760, f"{RELICV2}, section G.4"),),
    "relicv2_r50_6_2": (_linear(0.765, f"{RELICV2}, section G.4"),),
    "relicv2_r50_8_2": (_linear(0.765, f"{RELICV2}, section G.4"),),
}


def rows(preset: str, protocol: str) -> tuple[Published, ...]:
    """What the papers report for `preset` under `protocol`; empty where they do not."""
    return tuple(row for row in ROWS.get(preset, ()) if row.protocol == protocol)
