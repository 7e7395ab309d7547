"""The contact sheet: it shows what the loader yields, and refuses in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.tools import contact_sheet, preview
from fovea.tools.cli import call
from fovea.tools.preview_priors import prior_rows


def test_sheet_shows_the_batch(tiny_shards, tmp_path):
    """The tiles of the sheet are the loader's own pixels: 32 px views, enlarged six times."""
    out = tmp_path / "deep" / "views.png"
    options = ["--recipe", "ressl_32", "--images", "3", "--seed", "7", "--out", str(out)]
    assert call(["preview", str(tiny_shards["train"]), *options]) == 0
    sheet = np.asarray(Image.open(out))
    recipe = find_recipe("ressl_32")
    data = ShardSet.open(tiny_shards["train"])
    with Loader(data, recipe, batch_size=3, seed=7) as loader:
        batch = next(iter(loader.batches(0)))
    student = preview.to_pixels(batch.views["student"].numpy(), recipe)
    tile, gap, line = contact_sheet.TILE_PX, contact_sheet.GAP_PX, contact_sheet.LINE_PX
    left = gap + 2 * (tile + gap)
    top = 2 * gap + line
    shown = sheet[top : top + tile, left : left + tile]
    assert np.array_equal(shown[3::6, 3::6], student[0])


def test_pixels_come_back_from_normalised_views():
    recipe = find_recipe("ressl")
    levels = np.arange(256, dtype=np.float32)[None, None, None, :].repeat(3, 1)
    mean, std = (np.array(v, np.float32)[None, :, None, None] for v in (recipe.mean, recipe.std))
    back = preview.to_pixels((levels / 255 - mean) / std, recipe)
    assert np.array_equal(back[0, 0, :, 1], np.arange(256))


def test_windows_are_outlined_where_they_are():
    image = np.zeros((100, 80, 3), np.uint8)
    framed = contact_sheet.outline_windows(image, [((10, 20, 30, 40), (255, 0, 0))])
    ys, xs = np.nonzero(framed[..., 0])
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (10, 20, 39, 59)
    assert framed[40, 25].tolist() == [0, 0, 0]


def test_background_is_dimmed_with_masks_of_any_size(photos_like):
    mask = np.zeros((10, 10), np.uint8)
    mask[:, 5:] = 255
    shown = contact_sheet.tint_background(photos_like, mask)
    assert np.array_equal(shown[:, 40:], photos_like[:, 40:])
    assert not np.array_equal(shown[:, :20], photos_like[:, :20])


@pytest.fixture
def photos_like(tiny_shards) -> np.ndarray:
    image = decode_rgb(ShardSet.open(tiny_shards["train"]).read(0))
    return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)[:60, :60]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "resl"], "did you mean 'ressl'"),
        (["--recipe", "relicv2"], "needs masks"),
        (["--images", "0"], "want 1 to 100"),
        (["--recipe", "ressl_32", "--out", "OUT/views.nonsense"], "want a .png path"),
        (["--executor", "gpu"], "executor"),
        (["--priors"], "give --masks FOLDER"),
    ],
)
def test_bad_options_are_one_line(tiny_shards, tmp_path, options, words):
    options = [option.replace("OUT", str(tmp_path)) for option in options]
    with pytest.raises(UserError, match=words):
        call(["preview", str(tiny_shards["train"]), *options])


def test_no_shards_there(tmp_path: Path):
    with pytest.raises(UserError, match="nothing"):
        call(["preview", str(tmp_path / "nothing")])


def test_a_users_recipe(tiny_shards, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('cite = "me"\n[views.view0]\nsize_px = 24\ngrey_prob = 1.0\n')
    out = tmp_path / "views.png"
    options = ["--recipe", str(path), "--images", "2", "--out", str(out)]
    assert call(["preview", str(tiny_shards["val"]), *options]) == 0
    assert "1 views of recipe mine; me" in capsys.readouterr().out
    assert out.exists()


def test_how_masks_came_about(tiny_shards, tmp_path, capsys):
    """Each tile is the map that the prior gives, under its name."""
    train, masks = str(tiny_shards["train"]), tmp_path / "rbd"
    assert call(["mask", train, str(masks), "--prior", "robust_background", "--workers", "1"]) == 0
    out = tmp_path / "priors.png"
    options = ["--masks", str(masks), "--priors", "--images", "2", "--out", str(out)]
    assert call(["preview", train, *options]) == 0
    assert "priors and masks of 2 of 120 images" in capsys.readouterr().out
    data = ShardSet.open(tiny_shards["train"])
    row = prior_rows(data, MaskSet.open(masks, data), [7])[0]
    assert [cell.title for cell in row[1:]] == [
        "dense sparse reconstruction",
        "manifold ranking",
        "markov chain",
        "robust background",
        "rbd",
        "background removed",
    ]
    image = decode_rgb(data.read(7))
    made = np.abs(row[4].pixels[..., 0].astype(int) - row[5].pixels[..., 0])
    assert made.mean() < 2, "the mask was made by this very prior"
    kept = row[6].pixels != 128
    assert np.array_equal(row[6].pixels[kept], image[kept])
    with Image.open(out) as sheet:
        width = sheet.width
    assert width == contact_sheet.GAP_PX + 7 * (contact_sheet.TILE_PX + contact_sheet.GAP_PX)
