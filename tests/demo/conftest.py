import pytest
from support import demo_model


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run whose model sees leaves and water by their colours."""
    return demo_model.save_run(tmp_path_factory.mktemp("demo") / "colours")


@pytest.fixture(scope="session")
def server(run):
    """A page for all tests."""
    # Photographs have many tiles.
    with demo_model.serving("--model", run, "--tile", 64, "--max-pixels", 1_000_000) as server:
        yield server
