import pytest
from support import demo_model


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run whose model sees leaves and water by their colours."""
    return demo_model.save_run(tmp_path_factory.mktemp("demo") / "colours")


@pytest.fixture(scope="session")
def server(run):
    """A page for all tests; the last one of `test_page.py` ends it."""
    flags = ["--tile", 64, "--max-pixels", 1_000_000]  # photographs have many tiles
    server = demo_model.Server("--model", run, "--port", 0, *flags)
    try:
        server.url = server.wait_for("Showing .* at (http://.*)")[1]
        yield server
    finally:
        server.stop()
