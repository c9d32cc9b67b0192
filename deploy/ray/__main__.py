"""`python -m deploy.ray PORT key=value ...`: a Ray of its own on this machine, until it is ended.

For a try and for measurements; a cluster has its own `ray start`, and `serve deploy`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main(port: str, *given: str) -> None:
    """Serve on a port of this machine, and leave nothing behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    from deploy.ray.app import build

    application = build(dict(pair.split("=", 1) for pair in given))
    ray.init("local", include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # in the place of those that Ray has set
        signal.signal(number, lambda *_: ended.set())
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
        serve.run(application)
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
