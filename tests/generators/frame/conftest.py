import pytest

from tests.generators.frame.small import MAKE_NETWORK


@pytest.fixture(params=sorted(MAKE_NETWORK))
def network_kind(request) -> str:
    return request.param
