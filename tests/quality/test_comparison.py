"""The quick comparison is still within its margins."""

import pytest

from benchmarks.quality.quick import QUICK, check
from benchmarks.quality.report import write_report
from benchmarks.quality.run import run
from benchmarks.quality.workbench import Places, open_bench

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("engine")  # skips where the demo backbone is not installed
def test_the_quick_run_keeps_its_margins(data, tmp_path):
    found = run(open_bench(Places(data.parent)), QUICK)
    write_report(found, tmp_path)
    assert check(found) == []
