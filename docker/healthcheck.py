"""Exit 0 if the server in this container is alive, as its `/health` says; else 1, with the reason.

Asks at the port that the environment names, where the image and compose set it, by HTTP and then by
HTTPS: a mounted file may have given the server a certificate. Knows nothing of readiness: a server
that drains is healthy.
"""

import os
import ssl
import sys
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError

PATIENCE_SECONDS = 4


def main() -> None:
    """Ask once by each scheme, until one is spoken there."""
    told: list[str] = []
    for scheme in ("http", "https"):
        address = f"{scheme}://127.0.0.1:{os.environ['SAILPLANE_PORT']}/health"
        try:
            ask(address)
            return
        except (OSError, HTTPException) as error:
            told.append(f"{address}: {error}")
            if isinstance(error, HTTPError):  # it was spoken
                break
    sys.exit("; ".join(told))


def ask(address: str) -> None:
    """Ask, and raise what came instead of 200."""
    # The certificate is for the public name, which is not how the server is reached here.
    context = ssl._create_unverified_context()
    direct = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    urllib.request.build_opener(*direct).open(address, timeout=PATIENCE_SECONDS).close()


if __name__ == "__main__":
    main()
