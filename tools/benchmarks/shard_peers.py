"""Writers of other libraries, for an interpreter that has them: reads ``NAME TREE OUT`` lines,
answers each with the number of images written. Imports nothing of ours, and nothing on a clock.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def sample_of(path: str) -> dict[str, Any]:
    """What a writer is given of an image: its bytes and a label."""
    return {"image": Path(path).read_bytes(), "label": 0}


def files_of(tree: str) -> list[str]:
    """The images of a tree."""
    return sorted(str(path) for path in Path(tree).rglob("*") if path.is_file())


def mosaicml(tree: str, out: str) -> int:
    """MosaicML Streaming's ``MDSWriter``, which is one process."""
    files = files_of(tree)
    columns = {"image": "bytes", "label": "int"}
    with import_module("streaming").MDSWriter(out=out, columns=columns) as writer:
        for file in files:
            writer.write(sample_of(file))
    return len(files)


def litdata(tree: str, out: str) -> int:
    """LitData's ``optimize`` on all cores.

    It deletes its cache folders, by default ``<temporary folder>/data`` and ``/chunks`` whatever
    else lies there, so it is given folders of its own.
    """
    files = files_of(tree)
    with tempfile.TemporaryDirectory(prefix="litdata-") as scratch:
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = os.path.join(scratch, "chunks")
        os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = os.path.join(scratch, "data")
        import_module("litdata").optimize(
            fn=sample_of,
            inputs=files,
            output_dir=out,
            chunk_bytes="64MB",
            num_workers=len(os.sched_getaffinity(0)),
        )
    return len(files)


WRITERS: dict[str, tuple[str, Callable[[str, str], int]]] = {
    "MosaicML MDSWriter, 1 process": ("streaming", mosaicml),
    "LitData optimize": ("litdata", litdata),
}


def installed() -> list[str]:
    """Writers whose library can be imported here."""
    found = []
    for name, (module, _) in WRITERS.items():
        try:
            import_module(module)
        except ImportError:
            continue
        found.append(name)
    return found


def serve() -> None:
    """Answer lines of JSON until there are none; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(installed()), file=answers, flush=True)
    for line in sys.stdin:
        name, tree, out = json.loads(line)
        print(json.dumps(WRITERS[name][1](tree, out)), file=answers, flush=True)


if __name__ == "__main__":
    serve()
