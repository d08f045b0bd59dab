from collections.abc import Iterator

import pytest

from opensora.engine.mindspore import set_jit


@pytest.fixture(params=["compiled", "operators"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways to run a block."""
    set_jit(request.param == "compiled")
    yield request.param
    set_jit(True)
