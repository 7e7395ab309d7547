"""``fovea COMMAND``: finds the command's module, parses its arguments, turns errors into one line.

Each command is a module of this package with ``Args`` (a dataclass whose docstring is the help) and
``run(args) -> int``. Heavy imports happen inside the chosen command, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from fovea.pipeline.errors import UserError
from fovea.pipeline.orphans import die_with_launcher
from fovea.training.signals import stop_request

# Read when torch is loaded. Threads that spin while they wait starve the loader's threads and other
# processes: with four busy processes on two cores a training step took five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = {
    "demo": "the whole chain on an embedded default, in minutes on a laptop CPU",
    "shard": "image folder (or archive) to WebDataset shards; resumable, parallel",
    "verify": "check shards: checksums, index, keys, decodability; repair what can be",
    "mask": "saliency masks for shards, as a resumable batch job",
    "refine": "a saliency network from the priors' masks, without labels",
    "preview": "contact sheet of the views as the trainer sees them",
    "pretrain": "train a backbone without labels; the same command resumes",
    "evaluate": "how good is the backbone: kNN and others",
    "doctor": "where the time of a run goes, and which option would help",
    "bench": "measures: parity with torchvision, speed of views, the feed of a GPU",
    "export": "the backbone for torchvision, timm, safetensors, ONNX or torch.hub, verified",
    "report": "one self-contained HTML page about a run",
}


def overview() -> str:
    """The text of ``fovea --help``."""
    lines = ["usage: fovea COMMAND [options]", "", "commands:"]
    lines += [f"  {name:10} {does}" for name, does in COMMANDS.items()]
    lines += ["", "'fovea COMMAND --help' explains one, with an example. Start with 'fovea demo'."]
    return "\n".join(lines)


def call(argv: list[str]) -> int:
    """Run ``fovea ARGV...`` in this process and return its exit code.

    Raises:
        UserError: bad usage or bad input.
    """
    command = argv[0]
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}: have {', '.join(COMMANDS)}")
    from .arguments import parse

    module = import_module(f"fovea.tools.{command}")
    read = getattr(module, "read", None)  # a command whose options depend on an argument
    args = read(argv[1:]) if read else parse(module.Args, f"fovea {command}", argv[1:])
    code: int = module.run(args)
    return code


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits: 0 success, 1 checks found something, 2 bad usage or input."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["pretrain"]:  # now, as what it imports takes seconds
        stop_request.listen()
    die_with_launcher()
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        sys.exit(0 if argv else 2)
    try:
        sys.exit(call(argv))
    except UserError as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", code=130))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _complain(message: str, code: int = 2) -> int:
    print(f"fovea: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
