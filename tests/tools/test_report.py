"""The report: what a browser renders of it, what it says about missing and damaged parts."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fovea.pipeline.errors import UserError
from fovea.tools import report
from fovea.tools.cli import call
from fovea.tools.report_run import read_run

CHROMIUM = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
PROBE = """<script>addEventListener('load', () => {
  const all = query => [...document.querySelectorAll(query)];
  const box = e => e.getBoundingClientRect();
  const style = getComputedStyle(document.body);
  const images = [...document.images];
  const fetched = performance.getEntriesByType('resource').map(r => r.name);
  document.body.dataset.probe = JSON.stringify({
    width: innerWidth,
    overflow: all('body *').filter(e => box(e).right > innerWidth + 1 && !e.closest('.scroll'))
      .slice(0, 3).map(e => e.outerHTML.slice(0, 80)),
    images: images.length,
    broken: images.filter(i => !i.naturalWidth).length,
    charts: all('svg.chart').map(e => Math.round(box(e).height)),
    smallest: Math.min(...all('svg text').map(e => box(e).height)),
    loaded: fetched.filter(name => !name.startsWith('data:')),
    headings: all('h2').map(h => h.textContent),
  });
});</script>"""


@pytest.fixture(scope="module")
def run(tiny_run: Path, tiny_shards: dict[str, Path], tmp_path_factory: Any) -> Path:
    """A copy of the tiny run with a kNN result."""
    folder = tmp_path_factory.mktemp("report") / "stripes"
    shutil.copytree(tiny_run, folder)
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    assert call(["evaluate", "knn", str(folder), *data, "--baselines", "--no-cache"]) == 0
    report.write([folder])
    return folder


class Parts(html.parser.HTMLParser):
    """Collects tags, their attributes and the text of the page; checks that tags are closed."""

    VOID = ("meta", "link", "img", "br", "path", "circle")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def browse(page: Path, folder: Path, *, width: int, dark: bool = False) -> tuple[Any, np.ndarray]:
    """What headless Chromium measures on the page, and a screenshot (H, W, 3)."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    base = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    base += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    base += ["--disable-sync", "--hide-scrollbars", f"--window-size={width},1600"]
    base += [f"--user-data-dir={folder}/profile", *(["--force-dark-mode"] if dark else [])]
    environment = {**os.environ, "HOME": str(folder)}
    options: dict[str, Any] = {"capture_output": True, "timeout": 60, "env": environment}
    shot = folder / "shot.png"
    url = probed.as_uri()
    dom = subprocess.run([*base, "--dump-dom", url], check=True, **options).stdout.decode()
    subprocess.run([*base, f"--screenshot={shot}", url], check=True, **options)
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page's script did not run"
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<")), cv2.imread(str(shot))


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, True)], ids=["desk", "phone"])
def test_a_browser_renders_everything(run: Path, tmp_path: Path, width: int, dark: bool) -> None:
    seen, shot = browse(run / "report.html", tmp_path, width=width, dark=dark)
    assert seen["width"] == width and seen["overflow"] == [], "nothing sticks out sideways"
    assert seen["images"] >= 30 and seen["broken"] == 0
    assert len(seen["charts"]) >= 6 and min(seen["charts"]) > 120
    assert seen["smallest"] >= 9, "text in charts stays legible"
    assert seen["loaded"] == [], "the page loads nothing"
    assert seen["headings"] == [
        "Curves", "Views", "Nearest neighbours", "Evaluations", "Configuration"
    ]  # fmt: skip
    paper = shot[: shot.shape[0], :4].reshape(-1, 3).mean()
    assert (paper < 60) if dark else (paper > 240)
    assert shot.std() > 5, "something is drawn"


def test_the_page_is_self_contained_and_modest(run: Path) -> None:
    path = run / "report.html"
    parts = Parts(path.read_text())
    assert parts.open == []
    for tag, attributes in parts.tags:
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), f"{tag} {name}={value[:60]}"
    assert "url(" not in path.read_text() and path.stat().st_size < 2_000_000


def test_it_says_what_the_run_measured(run: Path) -> None:
    knn = json.loads((run / "eval/knn.json").read_text())["rows"]
    text = Parts((run / "report.html").read_text()).text
    for row in knn.values():
        assert f"{100 * row['knn20']:.2f}" in text
    last = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [x["loss"] for x in last if x["kind"] == "train"]
    assert f"{losses[-1]:.4g}" in text
    assert "untrained" in text and "raw pixels" in text and "ressl_demo" in text


def test_it_says_which_versions_the_run_was_computed_with(run: Path) -> None:
    text = Parts((run / "report.html").read_text()).text
    assert "Versions" in text and "versions.torch" in text
    for name in ("torch", "numpy"):
        assert version(name) in text


def test_names_are_escaped(run: Path, tmp_path: Path) -> None:
    odd = tmp_path / "<b>run & co"
    shutil.copytree(run, odd)
    page = report.write([odd]).read_text()
    assert "&lt;b&gt;run &amp; co" in page and "<b>run" not in page


def test_runs_are_compared(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "stripes"
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    config["preset"] = "isd_r18"
    (other / "config.json").write_text(json.dumps(config))
    page = report.write([run, other], out=tmp_path / "both.html")
    text = Parts(page.read_text()).text
    assert "ISD (arXiv:2012.09259), table 1" in text and "41.50" in text
    assert text.count("isd_r18") >= 1 and "settings differ" in text
    assert f"{run.parent.name}/stripes" in text, "equal names are told apart"
    seen, _ = browse(page, tmp_path, width=500)
    assert seen["overflow"] == [] and seen["broken"] == 0


def test_networks_of_a_run_have_a_curve_each(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    parts = Parts(report.write([run, other], out=tmp_path / "both.html").read_text())
    for name in ("stripes student", "stripes teacher", "other student", "other teacher"):
        assert name in parts.text
    records = [read_run(run), read_run(other)]
    assert all(len(set(r.series("knn20", branch="student")[0])) > 1 for r in records)


def test_results_of_one_protocol_stand_side_by_side(
    run: Path, tiny_shards: dict[str, Path], tmp_path: Path
) -> None:
    both = [tmp_path / "one", tmp_path / "two"]
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"]), "--no-cache"]
    for folder in both:
        shutil.copytree(run, folder)
        assert call(["evaluate", "knn", str(folder), *data, "--k", "3"]) == 0
        assert call(["evaluate", "knn", str(folder), *data, "--branch", "teacher"]) == 0
    alone = Parts(report.write([both[0]]).read_text()).text
    assert "branch teacher" in alone and "k 3" in alone and "20-NN" in alone
    text = Parts(report.write(both, out=tmp_path / "page.html").read_text()).text
    for name in ("one", "two"):
        assert re.search(rf"{name}: [^:]*branch student[^:]*k 3", text)
        assert re.search(rf"{name}: [^:]*branch teacher", text)
    seen, _ = browse(tmp_path / "page.html", tmp_path, width=500)
    assert seen["overflow"] == []


def test_a_run_without_data_says_so(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "data": "/nowhere/shards"}))
    (moved / "eval/knn.json").unlink()
    text = Parts(report.write([moved]).read_text()).text
    assert "No pictures" in text and "/nowhere/shards" in text and "None yet" in text


def test_a_run_before_its_first_step_has_a_page(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run / "config.json", empty)
    assert "no step yet" in Parts(report.write([empty]).read_text()).text


def test_a_last_line_cut_short_by_a_kill_is_forgiven(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    lines = (cut / "metrics.jsonl").read_text()
    (cut / "metrics.jsonl").write_text(lines[:-20])
    report.write([cut])
    (cut / "metrics.jsonl").write_text(lines[20:])
    with pytest.raises(UserError, match=r"metrics.jsonl:1: not JSON"):
        report.write([cut])


def test_bad_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        report.write([tmp_path / "none"])
    with pytest.raises(UserError, match="is no run directory"):
        report.write([tmp_path])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        report.write([tmp_path])


def test_a_page_that_cannot_be_written_is_one_line(run: Path, tmp_path: Path) -> None:
    """Below /proc nothing can be made, not even by root; a device may not become a page."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for out, said in (
        (Path("/proc/page.html"), "cannot write here"),
        (Path("/proc/folder/page.html"), "cannot be made"),
        (tmp_path, "is a folder or a device"),
        (tmp_path / "pipe", "is a folder or a device"),
        (tmp_path / "file" / "page.html", "give a folder"),
    ):
        with pytest.raises(UserError, match=said):
            report.write([run], out=out)


def test_given_shards_that_are_not_there_are_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        report.write([run], data=tmp_path / "none", out=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
