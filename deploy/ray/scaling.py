"""How many replicas there should be: so that each has so much in hand, and no more.

In hand is what is asked of a replica and not answered: requests, or the samples in its queue where
those are more, since one request may bring a thousand. Ray keeps the bounds and the delays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

WAITING = "waiting"
"""What a replica tells under this name: samples in its queue."""


def by_queue(context: AutoscalingContext) -> tuple[float, dict[str, object]]:
    """A policy for Ray Serve: replicas wanted, and nothing kept until the next time."""
    waiting = sum((context.aggregated_metrics or {}).get(WAITING, {}).values())
    in_hand = max(float(context.total_num_requests), waiting)
    return in_hand / context.config.get_target_ongoing_requests(), {}
