"""Compute an expert's routing artefacts, and calibrate a library's constants.

Reads training examples and the frozen backbone; touches no weight of any expert.
"""
