import resource

import pytest
from support import demo_model


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run whose model sees leaves and water by their colours; its name means harm."""
    return demo_model.save_run(tmp_path_factory.mktemp("demo") / "colours\x1b[31m<b>")


@pytest.fixture(scope="session")
def server(run, tmp_path_factory):
    """A page for all tests, which cannot write files once it is ready."""
    pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("temporary")
    # Photographs have many tiles.
    flags = ("--model", run, "--tile", 64, "--max-pixels", 1_000_000)
    with demo_model.serving(*flags, TMPDIR=str(folder)) as server:
        process = server.process.pid
        before = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, before[1]))  # as on a full disk
        yield server
        assert not list(folder.iterdir())
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)
