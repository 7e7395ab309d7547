"""``manifest.json``: what a shard directory holds. Written last, so its presence means complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import UserError
from .files import write_atomic
from .layout import FORMAT_VERSION, MANIFEST


@dataclass(frozen=True)
class ShardInfo:
    """One tar."""

    name: str
    bytes: int
    samples: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents of a shard directory.

    `options` are those that the bytes depend on. `totals` counts what became of the source images
    (copied, repaired by kind, quarantined).
    """

    kind: Literal["images", "masks"]
    tool_version: str
    num_samples: int
    shards: tuple[ShardInfo, ...]
    class_names: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    images_checksum: str | None = None  # kind="masks": `checksum` of the images they belong to

    @property
    def checksum(self) -> str:
        """sha256 over the shards' checksums in order: names the bytes of all samples."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    @staticmethod
    def load(folder: Path) -> Manifest:
        """Read ``folder/manifest.json``.

        Raises:
            UserError: there is none, or it is of another format.
        """
        try:
            text = (folder / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{folder}: no finished shards here ({MANIFEST} is missing);"
                " make them with 'fovea shard SRC DST', masks with 'fovea mask SHARDS DST'"
            ) from None
        return Manifest.parse(text, str(folder / MANIFEST))

    @staticmethod
    def parse(text: bytes, name: str) -> Manifest:
        """The manifest in `text`; `name` is for messages.

        Raises:
            UserError: it is not one, or of another format.
        """
        try:
            values = json.loads(text)
            version = values.pop("format")
            values.pop("checksum")
            shards = tuple(ShardInfo(**shard) for shard in values.pop("shards"))
            names = tuple(values.pop("class_names"))
            manifest = Manifest(shards=shards, class_names=names, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{name}: not a manifest ({type(error).__name__}: {error});"
                " 'fovea verify DIR --repair' rebuilds it from the tars"
            ) from None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{name}: shard format {version}, this program reads {FORMAT_VERSION};"
                " shard again or use the version that wrote it"
            )
        return manifest

    def to_json(self) -> bytes:
        """The bytes of the file; equal manifests give equal bytes."""
        values = {"format": FORMAT_VERSION, **asdict(self), "checksum": self.checksum}
        return json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n"

    def save(self, folder: Path) -> None:
        """Write ``folder/manifest.json``, whole or not at all."""
        write_atomic(folder / MANIFEST, self.to_json())
