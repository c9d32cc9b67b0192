"""Instruction writers that speak HTTP or use an engine, and where their sentences go.

The protocol and the writer that needs no language model are in `routers.instructions`.
"""
