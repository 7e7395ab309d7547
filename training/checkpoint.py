"""Checkpoints: whole or absent, checked before they are trusted, written beside the training.

``checkpoints/step-000001234.pt`` is a torch file of tensors and plain values, readable with
``weights_only=True``; ``step-000001234.sha256`` beside it is in the format of ``sha256sum -c``.
"""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import disk_errors, remove_partials, whole_file, write_atomic

FORMAT = 1
FOLDER = "checkpoints"
KEEP = 2
CHUNK = 1 << 22

State = dict[str, Any]


def path_of(run: Path, step: int) -> Path:
    """File of the checkpoint after optimizer step number `step`."""
    return run / FOLDER / f"step-{step:09d}.pt"


def save(run: Path, state: State, keep: int = KEEP) -> Path:
    """Write `state` (with its ``step``) under `run` and delete all but the newest `keep`.

    The checksum is in place before the checkpoint gets its name.

    Raises:
        UserError: the disk is full or may not be written.
    """
    path = path_of(run, state["step"])
    data = io.BytesIO()  # torch's own file writer cannot be told that a disk is full
    torch.save({**state, "format": FORMAT}, data)
    digest = hashlib.sha256(data.getbuffer()).hexdigest()
    with disk_errors(run):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(data.getbuffer())
            write_atomic(path.with_suffix(".sha256"), f"{digest}  {path.name}\n".encode())
    for old in sorted(path.parent.glob("step-*.pt"))[:-keep]:
        _remove(old)
    return path


def tidy(run: Path, step: int) -> None:
    """Delete what is of no use to a run that goes on from its checkpoint at `step` (0: from none).

    What a process that was killed as it saved left behind, as large as a checkpoint; and later
    checkpoints, which are damaged: they would count among the newest, in the place of whole ones.
    Call only while holding the run's lock.
    """
    remove_partials(run / FOLDER)
    for path in (run / FOLDER).glob("step-*.pt"):
        if path > path_of(run, step):
            _remove(path)


def _remove(path: Path) -> None:
    path.unlink()
    path.with_suffix(".sha256").unlink(missing_ok=True)


def load(path: Path, content: State | None = None) -> State:
    """The state in one file.

    Args:
        content: what the file holds, where that was read already: then it is only checked.

    Raises:
        UserError: the file is missing, damaged or of another format.
    """
    try:
        wanted = path.with_suffix(".sha256").read_bytes().split()[0]
        found = _sha256(path).encode()
    except (OSError, IndexError):
        raise UserError(f"{path}: this checkpoint or its .sha256 is missing") from None
    if wanted != found:
        raise UserError(f"{path}: its checksum does not fit, so it is damaged")
    state: State = content or torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != FORMAT:
        raise UserError(f"{path}: format {state.get('format')}, this version reads {FORMAT}")
    return state


def load_latest(run: Path, say: Callable[[str], None] | None = None) -> State | None:
    """The newest whole checkpoint of a run, or None where there is none.

    A damaged one is reported through `say` (standard error by default) and the one before is taken.

    Raises:
        UserError: there are checkpoints and all of them are damaged.
    """
    paths = sorted((run / FOLDER).glob("step-*.pt"), reverse=True)
    for path in paths:
        try:
            return load(path)
        except UserError as error:
            _tell(f"warning: {error}; taking the one before", say)
    if paths:
        raise UserError(f"{run}: all {len(paths)} checkpoints are damaged; give another --out")
    return None


class Saver:
    """Saves in a thread: training waits only while the state is copied to host memory."""

    def __init__(self, run: Path, keep: int = KEEP) -> None:
        self._run = run
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: State) -> None:
        """Copy `state` and write it in the background; waits for the save before, if it runs."""
        self.wait()
        copied = host_copy(state)
        self._thread = threading.Thread(target=self._write, args=(copied,), name="checkpoint")
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a save is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Return once the last save is on disk.

        Raises:
            UserError: it could not be written.
        """
        self.finish()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Let the last save come to its end, whatever that is."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, state: State) -> None:
        try:
            save(self._run, state, self._keep)
        except BaseException as error:
            self._error = error


def host_copy(value: Any) -> Any:  # noqa: ANN401 (a tree of plain values)
    """`value` with every tensor copied to host memory, shared with nobody."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    if isinstance(value, dict):
        return {k: host_copy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(host_copy(v) for v in value)
    return value


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _tell(message: str, say: Callable[[str], None] | None) -> None:
    if say is not None:
        say(message)
    else:
        sys.stderr.write(f"fovea: {message}\n")
