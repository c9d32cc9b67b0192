"""Where benchmarks find the library and the data, and where they keep what they make."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "library" / "minilm"
WRITER = ROOT / "library" / "writer"
CARDS = ROOT / "library" / "tasks"
DATA = ROOT.parent / "shared" / "data"
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / "benchmarks" / ".cache"
PEERS = ROOT / "benchmarks" / ".peers"
