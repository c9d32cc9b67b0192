"""`python -m benchmarks.load`: find what a server can do, then ask that of it, and far more.

Phases that are done are kept in `benchmarks/.cache/load`, so a run that was cut off goes on with
the phase it was in; one that came to its end begins anew. Figures and page are written after every
phase.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rich.console import Console

from benchmarks.figures import Figure, save, show
from benchmarks.load import phases, report
from benchmarks.places import CACHE, DOCS, RESULTS
from benchmarks.processes import BenchmarkError

PHASES = ("search", "steady", "overload")
FULL = 30.0
"""Minutes from which figures are kept beside the others: a shorter run is a try."""


def main() -> None:
    """Run the phases that are not done."""
    parser = argparse.ArgumentParser("python -m benchmarks.load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=FULL, help="at 80%% of the saturation")
    given = parser.parse_args()
    folder, plan = CACHE / "load", phases.Plan(given.minutes)
    if all(phases.done(folder, plan, name) for name in PHASES):
        shutil.rmtree(folder)
    try:
        _run(plan, folder, Console())
    except BenchmarkError as error:
        parser.exit(1, f"Error: {error}\n")


def _run(plan: phases.Plan, folder: Path, console: Console) -> None:
    def tell(text: str) -> None:
        console.print(f"[dim]  {text}[/]")

    found: dict[str, report.Found] = {}

    def kept(name: str, *args: object) -> None:
        console.print(f"[dim]{name} ...[/]")
        run = getattr(phases, name)
        found[name] = phases.kept(folder, plan, name, lambda at: run(plan, at, tell, *args))
        _write(plan, folder, found, console)

    kept("search")
    top = report.top(found["search"])
    kept("steady", top)
    kept("overload", top)
    show("load", _figures(folder, found), console)


def _figures(folder: Path, found: dict[str, report.Found]) -> list[Figure]:
    figures = report.searched(found["search"])
    if "steady" in found:
        figures += report.steady(found["steady"], folder / "steady")
    if "overload" in found:
        figures += report.overloaded(found["overload"], folder / "overload")
    return figures


def _write(
    plan: phases.Plan, folder: Path, found: dict[str, report.Found], console: Console
) -> None:
    """Write what there is so far: into the repository if the run is a whole one."""
    whole = plan.minutes >= FULL
    figures = _figures(folder, found)
    save("load", figures, RESULTS if whole else folder)
    for path in report.write(folder, found, figures, (DOCS if whole else folder) / "load.md"):
        console.print(f"[dim]  {path}[/]", soft_wrap=True)


if __name__ == "__main__":
    main()
