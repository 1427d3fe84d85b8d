"""One cluster for all tests of this folder that need one: its processes take seconds to import PyTorch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster_site import Site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Site]":
    from cluster_site import cluster_site

    with cluster_site(tmp_path_factory.mktemp("site")) as site:
        yield site
