"""DALI's index of a tar (v1.2): one line a sample, ``EXT OFFSET SIZE NAME`` for each file of it."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import UserError
from .tar import Member

VERSION = "v1.2"


def split_key(name: str) -> tuple[str, str]:
    """Key and extension of a member, as DALI and webdataset see them: at the first dot."""
    dot = name.find(".", name.rfind("/") + 1)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :])


def group(members: Iterable[Member]) -> list[list[Member]]:
    """Members of each sample: neighbours that share a key. Hidden files are left out."""
    samples: list[list[Member]] = []
    last = None
    for member in members:
        key = split_key(member.name)[0]
        if not key or key.endswith("/"):
            continue
        if key == last:
            samples[-1].append(member)
        else:
            samples.append([member])
        last = key
    return samples


def index_text(members: Iterable[Member]) -> bytes:
    """Contents of the ``.idx`` file for `members` in tar order.

    Raises:
        UserError: a name holds white space, which the format cannot express.
    """
    samples = group(members)
    lines = [f"{VERSION} {len(samples)}"]
    for sample in samples:
        for member in sample:
            if len(member.name.split()) != 1:
                raise UserError(f"member {member.name!r}: DALI's index cannot hold white space")
        lines.append(" ".join(_component(member) for member in sample))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _component(member: Member) -> str:
    return f"{split_key(member.name)[1]} {member.offset} {member.size} {member.name}"
