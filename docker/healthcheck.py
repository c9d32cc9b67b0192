"""Exit 0 if the server in this container is alive, as its `/health` says; else 1, with the reason.

Reads the server's own settings from the environment, where the image and compose set them. Knows
nothing of readiness: a server that drains is healthy.
"""

import os
import ssl
import sys
import urllib.request

PATIENCE_SECONDS = 4


def address() -> str:
    """Where `/health` of this container is."""
    scheme = "https" if os.environ.get("SAILPLANE_TLS_CERTIFICATE") else "http"
    return f"{scheme}://127.0.0.1:{os.environ['SAILPLANE_PORT']}/health"


def main() -> None:
    """Ask once."""
    # The certificate is for the public name, which is not how the server is reached here.
    context = ssl._create_unverified_context()
    direct = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    try:
        urllib.request.build_opener(*direct).open(address(), timeout=PATIENCE_SECONDS).close()
    except OSError as error:
        sys.exit(f"{address()}: {error}")


if __name__ == "__main__":
    main()
