"""Measurements of Sailplane, each written to `benchmarks/results/<name>.json` and printed.

What is compared is measured side by side in one run, and targets are ratios. See README.md.
"""
