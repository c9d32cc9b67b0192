"""`docker/verify.sh` itself: the image is built, serves, and stops."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "verify.sh"
NEEDED = ("buildah", "debootstrap", "unshare", "nsenter")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make namespaces and a Debian")
@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)} of the machine"
)
def test_the_image_is_built_serves_and_stops():
    told = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=1800)
    assert told.returncode == 0, told.stdout + told.stderr
