"""Where a run happens and how it reports: values out of range are named before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fovea.pipeline.errors import UserError
from fovea.training.options import Options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", 1025),
        ("prefetch", 0),
        ("hw_decoder_frac", 1.1),
        ("log_every", 0),
        ("save_minutes", 0.0),
        ("save_every", -1),
        ("eval_every", -1),
    ],
)
def test_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} {value}: want"):
        Options(data=Path("data"), out=Path("out"), **{name: value})
