"""What a server shows to the world, checked before anything is loaded: address, keys, TLS.

Also opens what stands beside the API: the port of the metrics, the file of the audit log, and the
console.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging

from fastapi import FastAPI

from server.observability.audit import audit_to
from server.observability.metrics import Metrics
from server.settings import Settings, SettingsError

log = logging.getLogger("sailplane.serve")


def require_guarded(settings: Settings) -> None:
    """Refuse to serve whoever comes by, unless that is what is wanted.

    Raises:
        SettingsError: the address is public and there are no keys, or half of TLS is missing.
    """
    if not (settings.keys or settings.allow_anonymous or is_private(settings.host)):
        raise SettingsError(
            f"host = {settings.host!r}: others can reach this address, and there are no keys. Make "
            "some with `sailplane keys add NAME --keys FILE` and serve with --keys FILE, or say "
            "--allow-anonymous if something else guards it."
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise SettingsError("tls_certificate and tls_key: expected both or neither")
    for name in ("tls_certificate", "tls_key"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise SettingsError(f"{name} = {str(path)!r}: expected a file that exists")


def is_private(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_metrics(settings: Settings, metrics: Metrics) -> None:
    """Serve /metrics at a port of their own, from a thread that ends with the process.

    Raises:
        SettingsError: it is taken.
    """
    if settings.metrics_port is None:
        return
    from prometheus_client import start_http_server

    if not is_private(settings.metrics_host):
        log.warning(
            "whoever reaches port %d reads metrics without a key: names of experts and of keys",
            settings.metrics_port,
        )
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, metrics.registry)
    except OSError as error:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        raise SettingsError(
            f"metrics_port = {settings.metrics_port}: cannot listen on {where} ({error.strerror})"
        ) from error


def mount_console(app: FastAPI) -> bool:
    """Serve the console beside the API, if it is installed; whether it is."""
    if importlib.util.find_spec("nicegui") is None:
        return False
    from server.console.mount import mount
    from server.relay.local import LocalRelay

    mount(app, LocalRelay(app))
    return True


def open_audit_log(settings: Settings) -> None:
    """Write the audit log to its file as well, where there is to be one.

    Raises:
        SettingsError: it cannot be written.
    """
    if settings.audit_log is None:
        return
    try:
        audit_to(settings.audit_log)
    except OSError as error:
        raise SettingsError(
            f"audit_log = {str(settings.audit_log)!r}: expected a file that can be written "
            f"({error.strerror})"
        ) from error
