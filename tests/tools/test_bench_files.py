"""Files of benchmarks: what is measured again joins what they hold, of the same machine alone."""

from __future__ import annotations

import json

import pytest

from fovea.pipeline.errors import UserError
from fovea.tools.benchmarks import harness


def test_contestants_measured_alone_join_those_that_a_file_holds(tmp_path):
    out = tmp_path / "views.json"

    def report(only, cores=2, **rates):
        figures = {
            "cores": cores,
            "images_per_s": rates,
            "rows": [{"contestant": k} for k in rates],
        }
        harness.report("views", figures, as_json=False, out=out, only=only)
        return json.loads(out.read_text())

    report((), ours=1.0, theirs=2.0)
    stored = report(("ours",), ours=3.0)
    assert stored["images_per_s"] == {"ours": 3.0, "theirs": 2.0}
    assert stored["rows"] == [{"contestant": "theirs"}, {"contestant": "ours"}]
    assert len(stored["earlier"]) == 1
    with pytest.raises(UserError, match="its cores is another, so --only cannot add to it"):
        report(("ours",), cores=4, ours=3.0)
    assert report((), cores=4, ours=3.0)["images_per_s"] == {"ours": 3.0}
