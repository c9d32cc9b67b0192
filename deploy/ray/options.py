"""What is said of the set of replicas, and the settings of each, from one list of `key=value`.

Settings are read as those of `sailplane serve`: given, from the environment, or from its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from server.settings import DEFAULT, Origins, Settings, SettingsError, read_settings

ELSEWHERE = {
    "host": "http_options.host of the Serve configuration says where to listen",
    "port": "http_options.port of the Serve configuration says where to listen",
    "tls_certificate": "http_options.ssl_certfile of the Serve configuration is that",
    "tls_key": "http_options.ssl_keyfile of the Serve configuration is that",
    "metrics_port": "the ingress serves /metrics of all replicas",
    "metrics_host": "the ingress serves /metrics of all replicas",
    "linger_seconds": "Ray sends a replica that is to end nothing more",
}
"""Settings of a listener, which Ray has, and what to use in their place."""


class SetOptions(BaseModel):
    """The set of replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(2, ge=1, description="Replicas, or the fewest of them.")
    max_replicas: int | None = Field(None, ge=1, description="The most, to follow the load.")
    target_in_hand: float = Field(
        64.0, gt=0, description="Requests, or samples in the queue, that one replica should have."
    )
    upscale_delay_seconds: float = Field(10.0, ge=0)
    downscale_delay_seconds: float = Field(300.0, ge=0)
    cpus: float = Field(1.0, gt=0, description="Cores that Ray sets aside for a replica.")
    gpus: float = Field(0.0, ge=0)
    ingresses: int = Field(1, ge=1, description="Processes in front of the replicas.")
    ingress_cpus: float = Field(0.5, ge=0)
    by_expert: bool = Field(
        False, description="Send requests for an expert to a replica that was asked for it before."
    )
    health_seconds: float = Field(2.0, gt=0, description="How often Ray looks at a replica.")


def read_options(given: Mapping[str, object]) -> tuple[SetOptions, Settings]:
    """Both, checked.

    Raises:
        SettingsError: a key that does not exist, or a value that does not fit.
    """
    of_set = {key: value for key, value in given.items() if key in SetOptions.model_fields}
    origins = read_settings({key: value for key, value in given.items() if key not in of_set})
    try:
        options = SetOptions(**of_set)  # type: ignore[arg-type]
    except ValidationError as error:
        fault = error.errors()[0]
        raise SettingsError(f"{fault['loc'][0]} = {fault['input']!r}: {fault['msg']}") from None
    if options.max_replicas is not None and options.max_replicas < options.replicas:
        raise SettingsError(f"max_replicas = {options.max_replicas}: expected replicas or more")
    if options.by_expert and options.max_replicas not in (None, options.replicas):
        raise SettingsError(
            "by_expert = True: leave max_replicas out; a new replica would be asked for nothing "
            "that another has had"
        )
    _require_ours(origins)
    return options, _for_replicas(origins.settings, options)


def _require_ours(origins: Origins) -> None:
    for key, instead in ELSEWHERE.items():
        if origins.of[key] != DEFAULT:
            raise SettingsError(f"{key} (from {origins.of[key]}): leave it out; {instead}")
    if not (origins.settings.keys or origins.settings.allow_anonymous):
        raise SettingsError(
            "keys: Ray says where the application listens, so say who may ask: keys=FILE, made by "
            "`sailplane keys add NAME --keys FILE`, or allow_anonymous=true if nobody else reaches "
            "its address or something else guards it"
        )


def _for_replicas(settings: Settings, options: SetOptions) -> Settings:
    """Paths as others find them, and the threads that a replica's cores allow."""
    paths = {key: value.absolute() for key, value in settings if isinstance(value, Path)}
    roots = tuple(root.absolute() for root in settings.adapter_roots)
    threads = settings.threads or max(1, int(options.cpus))
    return settings.model_copy(update={**paths, "adapter_roots": roots, "threads": threads})


def plain(settings: Settings) -> dict[str, object]:
    """Settings as values that travel; `Settings(**values)` is the same."""
    return {
        key: value.get_secret_value() if isinstance(value, SecretStr) else value
        for key, value in settings
    }
