"""`serve run deploy.ray.app:build key=value ...`: the application, from options and settings."""

from __future__ import annotations

from collections.abc import Mapping

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deploy.ray.ingress import Ingress
from deploy.ray.options import SetOptions, plain, read_options
from deploy.ray.replica import Replica
from server.settings import Settings

GRACE = 5.0
"""Seconds that a replica has to end beyond those it may drain."""

HEALTHY = 10.0
"""Seconds in which a replica says that it is well; three times late, and it is replaced."""
QUIET = {"enable_access_log": False}
"""A replica's app writes a line for each request itself."""


def build(given: Mapping[str, object]) -> Application:
    """The application.

    Args:
        given: fields of `SetOptions`, and settings of `sailplane serve`.

    Raises:
        SettingsError: a key that does not exist, or a value that does not fit.
    """
    options, settings = read_options(given)
    replicas = _replicas(options, settings).bind(plain(settings), options.by_expert)
    most = options.max_replicas or options.replicas
    ingress = serve.deployment(Ingress).options(
        name="Ingress",
        logging_config=QUIET,
        num_replicas=options.ingresses,
        ray_actor_options={"num_cpus": options.ingress_cpus},
        max_ongoing_requests=most * in_hand(settings),
        graceful_shutdown_timeout_s=settings.drain_seconds + GRACE,
    )
    return ingress.bind(
        replicas, settings.body_limit, settings.client_timeout_seconds, settings.log_level,
        options.by_expert,
    )  # fmt: skip


def in_hand(settings: Settings) -> int:
    """Requests that a replica takes at once: more than its queue, so that this one says no."""
    return settings.max_queue + settings.max_rows + 64


def _replicas(options: SetOptions, settings: Settings) -> serve.Deployment:
    follows = options.max_replicas is not None and options.max_replicas > options.replicas
    count = {"autoscaling_config": _scaling(options)} if follows else {
        "num_replicas": options.replicas
    }  # fmt: skip
    return serve.deployment(Replica).options(
        name="Replica",
        logging_config=QUIET,
        **count,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        **_most(options, settings),
        health_check_period_s=options.health_seconds,
        health_check_timeout_s=HEALTHY,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=settings.drain_seconds + GRACE,
    )


def _most(options: SetOptions, settings: Settings) -> dict[str, int]:
    """Requests that a replica may have, and those that may wait for one.

    Where an expert's requests go to who has it, others must get some before it refuses them.
    """
    if not options.by_expert:
        return {"max_ongoing_requests": in_hand(settings)}
    each = max(1, round(2 * options.target_in_hand))
    return {"max_ongoing_requests": each, "max_queued_requests": in_hand(settings)}


def _scaling(options: SetOptions) -> AutoscalingConfig:
    assert options.max_replicas is not None
    return AutoscalingConfig(
        min_replicas=options.replicas,
        max_replicas=options.max_replicas,
        target_ongoing_requests=options.target_in_hand,
        upscale_delay_s=options.upscale_delay_seconds,
        downscale_delay_s=options.downscale_delay_seconds,
        policy=AutoscalingPolicy(policy_function="deploy.ray.scaling:by_queue"),
    )
