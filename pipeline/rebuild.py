"""Index, samples.npy and manifest made again from the tars, e.g. of WebDataset tars in place."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import decode_grey
from .errors import UserError
from .files import DirectoryLock, write_atomic
from .index import index_text
from .layout import MASK_SAMPLE, NO_LABEL, PATHS, SAMPLE, SAMPLES, index_name
from .manifest import Manifest, ShardInfo
from .paths import parse_paths, path_lines
from .repair import BadImage, RepairOptions, repair
from .shards import save_rows
from .tar import scan
from .verify import Problem, Sample, ShardReport, expected_rows, read_samples, sha256_of


def rebuild(folder: Path, *, images: Path | None = None) -> list[Problem]:
    """Write index, ``samples.npy`` and manifest for the tars in `folder`, if they are sound.

    A tar that differs from a readable manifest is damaged, and no new manifest may hide that. With
    no manifest to compare with, every image is decoded. Returns what cannot be repaired; then
    nothing is written.

    Raises:
        UserError: there are no tars, or masks are given without their images.
    """
    with DirectoryLock(folder):
        old = _old_manifest(folder)
        paths = sorted(folder.glob("*.tar"))
        if old is not None:
            paths = [folder / info.name for info in old.shards]
        if not paths:
            raise UserError(f"{folder}: holds no tar")
        masks = old.kind == "masks" if old is not None else images is not None
        reports, problems = _read_all(paths, old, masks=masks)
        if problems:
            return problems
        manifest = _manifest(paths, reports, old, images, masks=masks)
        _write(folder, paths, reports, manifest)
    return []


def _old_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.load(folder)
    except UserError:
        return None


def _read_all(
    paths: list[Path], old: Manifest | None, *, masks: bool
) -> tuple[list[ShardReport], list[Problem]]:
    reports, problems = [], []
    for number, path in enumerate(paths):
        try:
            members = list(scan(path))
            checksum = sha256_of(path)
        except (UserError, FileNotFoundError) as error:
            what = "missing" if isinstance(error, FileNotFoundError) else str(error)
            problems.append(Problem(path.name, what.removeprefix(f"{path}: ") + "; shard it again"))
            continue
        samples, found = read_samples(path, members, masks=masks)
        if old is not None and old.shards[number].sha256 != checksum:
            found.append(Problem(path.name, "differs from the manifest's checksum; shard it again"))
        elif old is None and not masks:
            found += _judge(path, samples)
        problems += found
        reports.append(ShardReport(number, found, samples, checksum))
    return reports, problems


def _judge(path: Path, samples: list[Sample]) -> list[Problem]:
    """Images that a run might die of, or that decoders read differently."""
    problems = []
    with open(path, "rb") as file:
        for sample in samples:
            file.seek(sample.image.offset)
            try:
                kind = repair(file.read(sample.image.size), RepairOptions()).kind
            except BadImage as error:
                kind = error.reason
            if kind != "copied":
                what = f"{sample.key}: {kind}; write new shards with 'fovea shard'"
                problems.append(Problem(path.name, what))
    return problems


def _manifest(
    paths: list[Path],
    reports: list[ShardReport],
    old: Manifest | None,
    images: Path | None,
    *,
    masks: bool,
) -> Manifest:
    infos = tuple(
        ShardInfo(path.name, path.stat().st_size, len(report.samples), report.sha256)
        for path, report in zip(paths, reports, strict=True)
    )
    count = sum(info.samples for info in infos)
    if old is not None:
        return replace(old, shards=infos, num_samples=count)
    highest = max((s.label for report in reports for s in report.samples), default=NO_LABEL)
    return Manifest(
        kind="masks" if masks else "images",
        tool_version=version("fovea-ssl"),
        num_samples=count,
        shards=infos,
        class_names=tuple(str(number) for number in range(highest + 1)),
        images_checksum=Manifest.load(images).checksum if masks and images else None,
    )


def _write(folder: Path, paths: list[Path], reports: list[ShardReport], manifest: Manifest) -> None:
    for path in paths:
        write_atomic(folder / index_name(path.name), index_text(scan(path)))
    if manifest.kind == "masks":
        rows = expected_rows(reports, MASK_SAMPLE)
        _measure(folder, paths, rows)
    else:
        rows = expected_rows(reports, SAMPLE)
        _keep_paths(folder, [sample.key for report in reports for sample in report.samples])
    save_rows(folder, rows)
    manifest.save(folder)


def _measure(folder: Path, paths: list[Path], rows: NDArray[Any]) -> None:
    """Coverage and score of each mask: as they were, or coverage again and no score."""
    try:
        old = np.load(folder / SAMPLES, allow_pickle=False)
    except (OSError, ValueError):
        old = np.zeros(0, MASK_SAMPLE)
    if old.dtype == rows.dtype and len(old) == len(rows):
        rows["coverage"], rows["score"] = old["coverage"], old["score"]
        return
    rows["score"] = np.nan
    for number, path in enumerate(paths):
        with open(path, "rb") as file:
            for row in np.flatnonzero(rows["shard"] == number):
                file.seek(int(rows["offset"][row]))
                mask = decode_grey(file.read(int(rows["length"][row])))
                rows["coverage"][row] = (mask > 127).mean()


def _keep_paths(folder: Path, keys: list[str]) -> None:
    """Source paths that still fit are kept; else a sample is called by its key."""
    try:
        if len(parse_paths((folder / PATHS).read_bytes())) == len(keys):
            return
    except FileNotFoundError:
        pass
    write_atomic(folder / PATHS, path_lines(keys))
