"""``fovea bench knn``: exact nearest neighbours at the size of ImageNet, memory and time."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import disk_errors

from . import harness

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
NEIGHBOURS = 20
CHUNK_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Args:
    """Memory and time of the search in a memory-mapped file of made features.

    As many queries as there is patience for are searched among all rows, at two numbers of queries,
    so that what a block costs and what a query costs can be told apart; all queries are searched
    in one block, for the memory. The time of all queries in all rows is computed from these.

    Example: fovea bench knn --images 1281167 --queries 50000 --few 100 600
    """

    images: int = 1_281_167
    """Rows to search in."""
    queries: int = 50_000
    """Rows that a whole evaluation would look for."""
    few: tuple[int, int] = (100, 600)
    """Numbers of queries that are searched in all rows; less first."""
    width: int = 2048
    """Features a row."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the file; ``fovea evaluate`` writes float32."""
    device: str = "cpu"
    """cpu or cuda."""
    folder: Path | None = None
    """Where the file of features lies meanwhile; by default where temporary files do."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


def run(args: Args) -> int:
    """Measure and print."""
    import numpy as np

    if not 0 < args.few[0] < args.few[1] <= args.images:
        raise UserError(f"--few {args.few[0]} {args.few[1]}: want a number and a larger one")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, disk_errors(Path(folder)):
        path = Path(folder) / "features.npy"
        make(path, args)
        found = searched(np.load(path, mmap_mode="r"), args)
        size = path.stat().st_size
    per_query_s = (found[1].seconds - found[0].seconds) / (args.few[1] - args.few[0])
    whole_s = found[0].seconds + per_query_s * (args.queries - args.few[0])
    whole = {"what": f"{args.queries} queries in all rows, computed", "seconds": round(whole_s)}
    rows: list[dict[str, Any]] = [*(search.row() for search in found), whole]
    for row in [] if args.json else rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    question = (
        f"{NEIGHBOURS} nearest of {args.images} x {args.width} {args.dtype} features on disk; "
        "peak_gb is memory of the process without what is mapped from the file"
    )
    figures = {"rows": rows, "file_gb": round(size / 1e9, 2)}
    harness.report(question, figures, as_json=args.json, out=args.out)
    return 0


@dataclass(frozen=True)
class Search:
    """What one search took."""

    what: str
    seconds: float
    peak_gb: float

    def row(self) -> dict[str, Any]:
        """A line of the table."""
        return {
            "what": self.what,
            "seconds": round(self.seconds, 1),
            "peak_gb": round(self.peak_gb, 2),
        }


def searched(train: NDArray[np.float32], args: Args) -> list[Search]:
    """A few queries and some more in all rows, and all queries in one block of rows.

    Raises:
        UserError: a query's nearest is not the row that it was made of.
    """
    import numpy as np

    from fovea.training.evaluation.knn import BLOCK_ROWS, neighbours

    rows = np.linspace(0, args.images - 1, args.few[1]).astype(np.int64)
    some = np.asarray(train[rows], np.float32)
    some += 0.3 * np.random.default_rng(1).standard_normal(some.shape, np.float32)
    all_of_them = np.tile(some, (args.queries // len(some) + 1, 1))[: args.queries]
    tasks = {
        f"{args.few[0]} queries in all rows": (train, some[: args.few[0]]),
        f"{args.few[1]} queries in all rows": (train, some),
        f"{args.queries} queries in {BLOCK_ROWS} rows": (train[:BLOCK_ROWS], all_of_them),
    }
    found = []
    for what, (table, queries) in tasks.items():
        start_s = time.perf_counter()
        search = partial(neighbours, table, queries, NEIGHBOURS, device=args.device)
        (_, nearest), peak_gb = with_peak(search)
        found.append(Search(what, time.perf_counter() - start_s, peak_gb))
        if table is train and not np.array_equal(nearest[:, 0].cpu(), rows[: len(queries)]):
            raise UserError("a row was not found again: please report")
    return found


def make(path: Path, args: Args) -> None:
    """A file of features, each row unlike any other."""
    import numpy as np

    shape = (args.images, args.width)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=args.dtype, shape=shape)
    base = np.random.default_rng(0).standard_normal((CHUNK_ROWS, args.width), np.float32)
    for number, start in enumerate(range(0, args.images, CHUNK_ROWS)):
        rows = min(CHUNK_ROWS, args.images - start)
        file[start : start + rows] = shifted(base, number)[:rows]
    file.flush()


def shifted(base: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """`base` with its columns moved on: rows as random as new ones, but made much quicker."""
    import numpy as np

    return np.roll(base, 7 * number, axis=1)


def with_peak(work: Callable[[], T], every_s: float = 0.02) -> tuple[T, float]:
    """What `work` returns, and the most memory that the process held meanwhile, in GB.

    Pages of mapped files do not count: the system takes them back when it needs them.
    """
    peak, stop = [anonymous_gb()], threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            peak[0] = max(peak[0], anonymous_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = work()
    finally:
        stop.set()
        watcher.join()
    return found, peak[0]


def anonymous_gb() -> float:
    """Memory of this process that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise UserError("/proc/self/status has no RssAnon: this benchmark wants Linux")
