"""`sailplane serve`: build the app and run it until told to stop."""

from __future__ import annotations

import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from server.cli.common import busy, notes, tame_libraries
from server.cli.options import with_settings
from server.settings import Origins, Settings, SettingsError

if TYPE_CHECKING:
    import uvicorn

    from server.engine.run import Engine

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than load balancers keep theirs (60). One that
is closed just as the next request is sent on it costs that request."""
MESSAGE = 1 << 20
"""Bytes of a message to the console."""


@with_settings()
def serve(origins: Origins) -> None:
    """Serve the library: route every question to the experts that should answer it."""
    settings = origins.settings
    signal.signal(signal.SIGTERM, _end)  # process 1 of a container dies of no signal by itself
    tame_libraries(settings.threads)
    import uvicorn

    from experts.memory import spare_collector
    from server.build import build_app  # imports torch: not before --help
    from server.cli.public import mount_console, open_audit_log, require_guarded, serve_metrics
    from server.connections import Connection
    from server.listener import Listener
    from server.observability.logs import configure_logs

    require_guarded(settings)
    configure_logs(settings.log_level.upper())
    open_audit_log(settings)
    with busy(f"Loading backbone {settings.backbone} and library {settings.library}") as told:
        app = build_app(settings, told)
        shows = settings.console and mount_console(app)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        ws="websockets-sansio" if shows else "none",
        ws_max_size=MESSAGE,
        ws_per_message_deflate=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=KEEP_ALIVE,
        http=Connection,
    )
    _load_tls(config)
    service = app.state.context.service
    serve_metrics(settings, service.metrics)
    listener = Listener(
        config, service, patience=settings.client_timeout_seconds,
        linger=settings.linger_seconds, drain=settings.drain_seconds,
        greet=partial(_greet, service.engine, settings, shows),
    )  # fmt: skip
    # Until uvicorn listens to signals itself; and it raises SIGTERM again, once it has stopped, for
    # whoever handled it before: with nobody there, a clean end would look like a kill.
    signal.signal(signal.SIGTERM, lambda *_: setattr(listener, "should_exit", True))
    spare_collector()
    with suppress(KeyboardInterrupt):
        listener.run()


def _end(*_: object) -> NoReturn:
    """End while starting: nothing was promised to anybody yet."""
    raise SystemExit(0)


def _load_tls(config: uvicorn.Config) -> None:
    """Read certificate and key, which uvicorn would do too late for an error that says so."""
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"tls_certificate, tls_key: expected a certificate and its key ({error})"
        ) from error


def _greet(engine: Engine, settings: Settings, shows: bool, port: int) -> None:
    """Say what is served and where, and what of the library is not."""
    scheme = "https" if settings.tls_certificate else "http"
    where = f"{scheme}://{settings.host}:{port}"
    count, bad = len(engine.library.entries), len(engine.library.bad)
    by = "" if engine.embedder is engine.backbone else f", compared by {engine.embedder.id},"
    told = f"{count} experts on {engine.backbone.id}{by} at {where}, documented at {where}/docs"
    notes.print(f"{told}, shown at {where}/console" if shows else told, soft_wrap=True)
    if bad:
        notes.print(f"[red]{bad} cannot be served[/]: `sailplane experts list` says why.")
    if note := engine.routing.calibration_note:
        notes.print(f"[yellow]Calibration[/]: {note}", soft_wrap=True)
