"""Trees with odd names and links, and random trees, against a slow walk written another way."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.pipeline.images import list_tree, skip_kind
from fovea.pipeline.paths import escape, parse_paths, path_lines, unescape
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.sources import SourceOptions
from fovea.pipeline.store import ShardSet

JPEG = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()

ODD_NAMES = [
    b"plain.jpg",
    b"UPPER.JPG",
    b"two words (1).JPEG",
    b"a.b.c.tar.jpeg",
    b"no extension",
    b"na\xc3\xafve \xe7\xa9\xba.jpg",
    b"latin-1 \xe9.jpg",
    b"new\nline.jpg",
    b"back\\slash.jpg",
    b"-dash.jpg",
    b"quote'\".jpg",
    b"x" * 240 + b".jpg",
]


def names_of(root: Path) -> list[bytes]:
    return [os.fsencode(name) for name in list_tree(root).all_names()]


def test_odd_names_survive_to_paths_txt(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "in")
    os.mkdir(root)
    for name in ODD_NAMES:
        with open(os.path.join(root, name), "wb") as file:
            file.write(JPEG)
    assert names_of(tmp_path / "in") == sorted(ODD_NAMES)
    shard_images(str(tmp_path / "in"), tmp_path / "s", ShardOptions(), workers=0)
    shards = ShardSet.open(tmp_path / "s")
    assert {os.fsencode(shards.path_of(i)) for i in range(len(shards))} == set(ODD_NAMES)
    assert shards.class_names == () and (shards.labels == -1).all()


def test_hidden_and_companion_files_are_counted(tmp_path: Path) -> None:
    for name in (".hidden.jpg", "._a.jpg", "Thumbs.db", "labels.txt", "a.xml", "a.jpg", "b.zzz"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "c.jpg").write_bytes(JPEG)
    listing = list_tree(tmp_path)
    assert list(listing.all_names()) == ["a.jpg", "b.zzz"]
    kinds = {"hidden": 2, "thumbs.db": 1, ".txt": 1, ".xml": 1, "hidden folder": 1}
    assert listing.skipped == kinds


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "far.jpg").write_bytes(JPEG)
    (tmp_path / "in" / "a" / "near.jpg").write_bytes(JPEG)
    os.symlink("near.jpg", tmp_path / "in" / "a" / "same.jpg")
    os.symlink(tmp_path / "else", tmp_path / "in" / "b")
    os.symlink(tmp_path / "in", tmp_path / "in" / "a" / "up")
    os.symlink("nothing.jpg", tmp_path / "in" / "a" / "dangling.jpg")
    listing = list_tree(tmp_path / "in")
    assert list(listing.all_names()) == ["a/dangling.jpg", "a/near.jpg", "a/same.jpg", "b/far.jpg"]
    assert listing.skipped == {"link to a parent folder": 1}
    manifest = shard_images(str(tmp_path / "in"), tmp_path / "s", ShardOptions(), workers=0)
    assert manifest.num_samples == 3 and manifest.totals["quarantined"] == 1
    assert "no such file" in (tmp_path / "s" / "quarantine.jsonl").read_text().lower()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jpg", None), ("a", None), ("a.crash", None), ("README", "readme"), ("x.CSV", ".csv")],
)
def test_skip_kind(name: str, kind: str | None) -> None:
    assert skip_kind(name) == kind


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=8))
def test_paths_are_one_line_each(paths: list[str]) -> None:
    assert parse_paths(path_lines(paths)) == paths
    assert all(unescape(escape(path)) == path and "\n" not in escape(path) for path in paths)


FOLDER = st.text(st.sampled_from("aZ9 .é空_-"), min_size=1, max_size=4).filter(
    lambda name: name[0] not in ". " and name.strip(" .")
)
TREES = st.dictionaries(
    st.lists(FOLDER, max_size=3).map(tuple),
    st.sets(FOLDER.map(lambda stem: stem + ".jpg"), max_size=4),
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=TREES, per_shard=st.integers(1, 7), seed=st.integers(0, 5))
def test_random_trees(tree: dict[tuple[str, ...], set[str]], per_shard: int, seed: int) -> None:
    """Every file comes through byte for byte, with the class of its top folder, in any tree."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "in"
        written = {}
        for number, (folders, names) in enumerate(tree.items()):
            for name in names:
                path = root.joinpath("top", *folders, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    continue
                path.write_bytes(JPEG + bytes([number]) + name.encode())
                written["/".join((*folders, name))] = path.read_bytes()
        if not written:
            return
        options = ShardOptions(
            samples_per_shard=per_shard, seed=seed, source=SourceOptions(class_from="parent")
        )
        shard_images(str(root / "top"), Path(scratch) / "s", options, workers=0)
        with ShardSet.open(Path(scratch) / "s") as shards:
            assert {shards.path_of(i): shards.read(i) for i in range(len(shards))} == written
            assert len(shards.manifest.shards) == -(-len(written) // per_shard)
            for sample in range(len(shards)):
                folder = shards.path_of(sample).rpartition("/")[0]
                label = int(shards.labels[sample])
                if label >= 0:
                    assert folder.endswith(shards.class_names[label])
                else:
                    assert folder == ""


def test_pipes_devices_and_broken_links_never_block(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "folder.jpg").mkdir(parents=True)
    (root / "folder.jpg" / "inside.jpg").write_bytes(JPEG)
    (root / "good.jpg").write_bytes(JPEG)
    os.mkfifo(root / "pipe.jpg")
    links = {"a.jpg": "pipe.jpg", "b.jpg": "/dev/zero", "c.jpg": "c.jpg", "d.jpg": "nowhere"}
    for name, target in links.items():
        os.symlink(target, root / name)
    listed = list_tree(root)
    assert list(listed.all_names()) == ["c.jpg", "d.jpg", "folder.jpg/inside.jpg", "good.jpg"]
    assert listed.skipped == {"device or socket": 3}
    manifest = shard_images(str(root), tmp_path / "s", ShardOptions(), workers=0)
    assert manifest.num_samples == 2 and manifest.totals["quarantined"] == 2


def test_a_list_that_names_pipes_and_folders_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "good.jpg").write_bytes(JPEG)
    (tmp_path / "list.csv").write_text("path\npipe.jpg\nfolder.jpg\ngood.jpg\n/dev/zero\n")
    source = str(tmp_path / "list.csv")
    manifest = shard_images(source, tmp_path / "s", ShardOptions(), workers=0)
    assert manifest.num_samples == 1 and manifest.totals["quarantined"] == 3
