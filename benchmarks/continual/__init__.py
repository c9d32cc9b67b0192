"""Continual learning, compared: `python -m benchmarks.continual`.

Streams of six tasks, an expert each as the stream goes on, and rows of ways to answer all tasks
seen so far, asked through the engine that serves. Routers see the input only. Writes
`benchmarks/results/continual.json` and a picture a stream.
"""
