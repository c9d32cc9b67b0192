"""`python -m benchmarks [NAME ...]`: run benchmarks, print their figures, keep them.

`--quick` takes two short rounds to see that everything runs; its figures mean nothing and are
not kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from transformers.utils import logging

from benchmarks import batch, choose, forward, library, peers, replicas, server
from benchmarks.figures import Figure, save, show
from benchmarks.generation import speed, vllm_env
from benchmarks.processes import BenchmarkError
from experts.memory import keep_freed

BENCHMARKS: dict[str, Callable[[bool], list[Figure]]] = {
    "forward": forward.run,
    "choose": choose.run,
    "library": library.run,
    "server": server.run,
    "batch": batch.run,
    "generation": speed.run,
    "peers": lambda quick: [*peers.run(quick), *speed.run_peers(quick)],
    "ray": replicas.run,
}


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing kept")
    parser.add_argument(
        "--setup", action="store_true", help="only build the peers' virtual environments"
    )
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    logging.disable_progress_bar()
    keep_freed()  # as `sailplane serve` does; bare passes and PEFT gain by it too
    try:
        if given.setup:
            peers.setup()
            vllm_env.setup()
            return
        for name in given.names or BENCHMARKS:
            _run(name, given.quick)
    except BenchmarkError as error:
        parser.exit(1, f"Error: {error}\n")


def _run(name: str, quick: bool) -> None:
    console = Console()
    console.print(f"[dim]{name} ...[/]")
    figures = BENCHMARKS[name](quick)
    show(name, figures, console)
    if not quick:
        console.print(f"[dim]kept in {save(name, figures)}[/]", soft_wrap=True)


if __name__ == "__main__":
    main()
