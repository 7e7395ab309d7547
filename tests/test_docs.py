"""Every command in the docs: run on tiny images, or parsed where it needs ImageNet or a cluster."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fovea.pipeline import lookup
from fovea.tools.cli import COMMANDS, call

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WITH_COMMANDS = [*PAGES, ROOT / "README.md"]
QUICK = ["--epochs", "1", "--device", "cpu", "--backbone", "resnet_tiny", "--stem", "small64"]
LONG = ("evaluation", "masks", "export")  # pages whose commands take more than a few seconds
PACKAGES = {
    "pipeline/recipes": "fovea.pipeline.recipes",
    "training/methods": "fovea.training.methods",
    "training/presets": "fovea.training.presets",
    "saliency/priors": "fovea.saliency.priors",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and whether only its options are to be checked."""

    language: str
    text: str
    options_only: bool


def blocks(page: Path) -> list[Block]:
    pattern = r"(<!-- options only -->\n)?^```(\w+)\n(.*?)^```$"
    found = re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, text, bool(mark)) for mark, language, text in found]


def commands(block: Block) -> list[list[str]]:
    joined = block.text.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [line for line in lines if line]


def fovea_part(words: list[str]) -> list[str]:
    """The arguments of ``fovea`` in a command that may start with torchrun."""
    if words[0] == "torchrun":
        at = words.index("fovea.tools.cli")
        assert words[at - 1] == "-m"
        return words[at + 1 :]
    assert words[0] == "fovea", f"not a command of ours: {words}"
    return words[1:]


@pytest.fixture
def place(tiny_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with photos/{train,val}, whose new methods, recipes, ... are found by name."""
    shutil.copytree(tiny_tree, tmp_path / "photos")
    for item in (tiny_tree / "train" / "disc").iterdir():  # enough for a batch of 128
        shutil.copy(item, tmp_path / "photos/train/disc" / f"more{item.name}")
    monkeypatch.chdir(tmp_path)
    for package in PACKAGES.values():
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__])
    yield tmp_path


def add_file(place: Path, text: str) -> None:
    """A python block whose first line names its file becomes that file."""
    named = re.match(r"# ((?:pipeline|training|saliency)/\w+)/(\w+)\.py\n", text)
    assert named, "a python block starts with '# folder/name.py'"
    folder = place / named[1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{named[2]}.py").write_text(text)
    package = importlib.import_module(PACKAGES[named[1]])
    if str(folder) not in package.__path__:
        package.__path__.append(str(folder))
    assert named[2] in lookup.names(PACKAGES[named[1]])


def parse_only(argv: list[str]) -> None:
    """Check command, preset and options without running anything."""
    module = importlib.import_module(f"fovea.tools.{argv[0]}")
    if hasattr(module, "read"):
        module.read(argv[1:])
    else:
        from fovea.tools.arguments import parse

        parse(module.Args, f"fovea {argv[0]}", argv[1:])


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.stem)
def test_commands_have_options_that_exist(page: Path, place: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and page.stem == "extending":
            add_file(place, block.text)
        if block.language == "sh":
            for words in commands(block):
                assert fovea_part(words)[0] in COMMANDS
                parse_only(fovea_part(words))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.slow] * (p.stem in LONG), id=p.stem)
        for p in WITH_COMMANDS
    ],
)
def test_commands_run(page: Path, place: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and page.stem == "extending":
            add_file(place, block.text)
        if block.language != "sh":
            continue
        for words in commands(block) if not block.options_only else []:
            argv = fovea_part(words)
            if "my_centre" in argv:
                try_prior("my_centre")  # worker processes do not see the folder of this test
            elif argv[0] == "pretrain":
                assert call([*argv, *QUICK]) == 0
            else:
                assert call(argv) == 0, words


def try_prior(name: str) -> None:
    """A prior's map of a bright disc is in [0, 1] and larger inside."""
    from fovea.saliency.picture import prepare

    y, x = np.mgrid[:60, :80]
    inside = np.hypot(y - 30, x - 40) < 12
    image = np.where(inside[..., None], (200, 60, 40), (30, 60, 90)).astype(np.uint8)
    found = lookup.load("fovea.saliency.priors", name).saliency(prepare(image))
    assert found.shape == (60, 80) and found.dtype == np.float32
    assert 0 <= found.min() and found.max() <= 1
    assert found[inside].mean() > found[~inside].mean()


def test_no_page_hides_a_command_in_another_language() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("sh", "bash"):
                assert not re.search(r"^fovea ", block.text, re.MULTILINE), page


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_menu_entries_exist_and_every_command_is_in_the_docs() -> None:
    menu = re.findall(r"^  - .*: (\S+\.md)$", (DOCS / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(menu) > 10 and [name for name in menu if not (DOCS / name).exists()] == []
    text = "".join(p.read_text() for p in PAGES) + (ROOT / "README.md").read_text()
    assert [c for c in COMMANDS if f"fovea {c}" not in text] == []


def pages_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    module = pages_module()
    hint = "run 'python docs/make_pages.py'"
    assert (DOCS / "presets.md").read_text() == module.presets_page(), hint
    sections = re.findall(r"^## (\w+)$", module.benchmarks_page(), re.MULTILINE)
    assert sections == sorted(path.stem for path in module.RESULTS.glob("*.json"))
    shown = (DOCS / "benchmarks.md").read_text()
    assert [name for name in sections if f"## {name}\n" not in shown] == [], hint
    assert not re.search(r"(?<![\w.])/(?:home|tmp|root|work)/", shown), "no folders of a machine"


def test_every_preset_says_where_it_is_from_and_what_to_expect() -> None:
    module = pages_module()
    for name in lookup.names(PACKAGES["training/presets"]):
        text = importlib.import_module(f"{PACKAGES['training/presets']}.{name}").__doc__ or ""
        assert {"Paper", "Cost", "Expected", "Command"} <= set(module.sections(text)), name
        command = text[text.index("Command:") :].replace("\\\n", " ")
        assert re.search(rf"pretrain\s+{name}\b", command), name


def test_the_loader_feeds_a_loop_of_ones_own_as_documented(place: Path) -> None:
    assert call(["shard", "photos/train", "shards/train"]) == 0
    [example] = [block.text for block in blocks(DOCS / "api.md") if block.language == "python"]
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["x"].shape == (64, 3, 32, 32) and names["y"].shape == (64,)
