"""How well each way of choosing experts answers: `python -m benchmarks.quality`.

Rows (ways to answer) by tasks by conditions (what the router sees), asked through the engine that
serves. Writes docs/quality.md, `benchmarks/results/quality.json` and the pictures beside them.
"""
