"""Merge experts into one, offline: rules as pure functions, and plan -> validate -> apply.

What a request merges on the fly is `experts.mix`'s work; here a merge becomes an expert of its own.
"""

from __future__ import annotations

from experts.merging.plan import Merged, Plan, apply, make_plan, merge, validate
from experts.merging.report import Likeness, likenesses
from experts.merging.rules import RULES, Parameter, Rule

__all__ = [
    "RULES", "Likeness", "Merged", "Parameter", "Plan", "Rule", "apply", "likenesses", "make_plan",
    "merge", "validate",
]  # fmt: skip
