"""Files behind ``s3://``, ``gs://`` and ``https://`` through fsspec, with retries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from .errors import UserError
from .files import partial_path, publish
from .images import skip_kind
from .listing import Listing, ListingBuilder

Result = TypeVar("Result")

SCHEMES = ("s3://", "gs://", "gcs://", "https://", "http://", "memory://")
WAITS_S = (0.2, 1.0, 3.0, 10.0)  # before each further attempt
SETTINGS: dict[str, dict[str, Any]] = {
    # A service that hangs is given up, and asked again by `with_retries`.
    "s3": {
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 30,
            "retries": {"mode": "standard", "max_attempts": 2},
        }
    }
}
HOPELESS = {
    "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound",
    "DefaultCredentialsError", "RefreshError",
}  # fmt: skip
DENIED = (401, 403)
# They log, with tracebacks, what they try again; what fails for good is raised, and said once.
for talkative in ("gcsfs", "google.auth"):
    logging.getLogger(talkative).setLevel(logging.CRITICAL)
EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "https": "http", "http": "http"}


def is_url(source: str) -> bool:
    """Whether `source` lies behind one of the schemes that are read through fsspec."""
    return source.startswith(SCHEMES)


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, and the path on it.

    Raises:
        UserError: the package for the scheme is not installed.
    """
    scheme = url.split("://", 1)[0]
    try:
        system, path = fsspec.core.url_to_fs(url, **SETTINGS.get(scheme, {}))
    except ImportError:
        raise UserError(
            f"{url}: the package for {scheme}:// is missing;"
            f" install it with: pip install 'fovea-ssl[{EXTRAS.get(scheme, scheme)}]'"
        ) from None
    return system, path


def with_retries(what: str, action: Callable[[], Result]) -> Result:
    """`action()`, tried again with growing pauses while the service fails.

    Raises:
        FileNotFoundError: there is no such object.
        UserError: it still fails, or access is denied; one line.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:  # every client library has its own types
            if _is_denied(error):
                raise UserError(
                    f"{what}: access denied ({_brief(error)}); renew the credentials and run again"
                ) from error
            if wait_s is None:
                raise UserError(
                    f"{what}: gave up after {len(WAITS_S)} retries ({_brief(error)})"
                ) from error
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def _is_denied(error: Exception) -> bool:
    """Whether trying again is no use; every client library says it in its own way."""
    status = getattr(error, "status", None) or getattr(error, "code", None)  # aiohttp, gcsfs
    return (
        isinstance(error, PermissionError)
        or type(error).__name__ in HOPELESS
        or status in DENIED
        or str(error).startswith("Forbidden: ")  # gcsfs
    )


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def read_remote(url: str) -> bytes:
    """All bytes of one object.

    Raises:
        FileNotFoundError: there is no such object.
        UserError: it cannot be read.
    """
    system, path = filesystem(url)

    def read() -> bytes:
        data: bytes = system.cat_file(path)
        size = system.info(path)["size"]
        if size is not None and len(data) != size:
            raise OSError(f"got {len(data)} of {size} bytes")
        return data

    return with_retries(url, read)


def fetch(url: str, target: Path, *, missing_ok: bool = False) -> Path:
    """Copy one object to the local file `target`, whole or not at all.

    Raises:
        UserError: there is none (unless that is fine), or it cannot be read.
    """
    system, path = filesystem(url)
    partial = partial_path(target)

    def copy() -> None:
        system.get_file(path, str(partial))
        size = system.info(path)["size"]
        if size is not None and partial.stat().st_size != size:
            raise OSError(f"got {partial.stat().st_size} of {size} bytes")

    try:
        with_retries(url, copy)
    except FileNotFoundError:
        partial.unlink(missing_ok=True)
        if missing_ok:
            return target
        raise UserError(f"{url}: no such object") from None
    publish(partial, target)
    return target


def remote_size(url: str) -> int:
    """Bytes of one object; 0 where the service does not say."""
    system, path = filesystem(url)
    return int(with_retries(url, lambda: system.info(path))["size"] or 0)


def list_remote(url: str, below: str = "") -> Listing:
    """Images under the prefix `url`, in byte order of their names.

    Raises:
        UserError: it cannot be listed.
    """
    system, path = filesystem(url)
    root = "/".join(part for part in (path.rstrip("/"), below.strip("/")) if part)
    system.invalidate_cache()
    found: dict[str, dict[str, Any]] = with_retries(
        url, lambda: system.find(root, withdirs=False, detail=True)
    )
    builder = ListingBuilder()
    start = len(root) + 1
    for name in sorted(
        (name[start:] for name in found), key=lambda name: name.encode("utf-8", "surrogateescape")
    ):
        folders, _, leaf = name.rpartition("/")
        kind = "hidden folder" if "/." in f"/{folders}" else skip_kind(leaf)
        if kind:
            builder.skip(kind)
        else:
            builder.add(name)
    scheme = url.split("://", 1)[0]
    return builder.build(f"{scheme}://{root}")
