"""One cluster for all tests here; each module has its own application on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.ray.clusters import cluster


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    with cluster() as address:
        yield address
