"""Structured logs: every record of the server's loggers is one JSON line on stderr."""

from __future__ import annotations

import json
import logging
import sys


class JsonFormatter(logging.Formatter):
    """A record as one JSON line; a message of ours that is JSON already passes unchanged."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = record.getMessage()
        if message.startswith("{") and record.name.startswith("sailplane"):
            return message
        line = {
            "time": round(record.created, 3),
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logs(level: str = "INFO", *, access: bool = True) -> None:
    """Send the loggers under `sailplane` to stderr; `access` False drops the line per request."""
    logger = logging.getLogger("sailplane")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.setLevel(level)  # the audit log's own file takes more
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    logging.getLogger("opentelemetry").handlers[:] = [handler]  # it tells of spans it cannot send
    pages = logging.getLogger("nicegui")  # what a browser sends may be in it
    pages.handlers[:], pages.propagate = [handler], False
    logging.getLogger("sailplane.access").setLevel(level if access else "WARNING")
    logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns at every product in 8 bits
