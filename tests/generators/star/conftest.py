import pytest

from tests.generators.star.small import MAKE_NETWORK, make_reference


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Latents and compiled kernels are kept for this run only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPATIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=sorted(MAKE_NETWORK))
def network_kind(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def reference():
    """Fourteen frames of 32 x 48 pixels; no whole number of latents."""
    return make_reference()
