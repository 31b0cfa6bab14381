"""The start of a server, which `serve` and `demo` share; their own tests query and stop it."""

import socket

import pytest

from fcn_keras.errors import UserError

pytest.importorskip("uvicorn")


def test_a_port_that_another_server_took_meanwhile_is_named(capfd, monkeypatch):
    from fcn_keras.serving import http

    # In this process it would close the captured stderr, as a stream of TensorFlow's logger.
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)

    with socket.socket() as ours, socket.socket() as theirs:
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", ours.getsockname()[1] if each is theirs else 0))
        theirs.listen()
        port = ours.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: Address already in use. Choose an"):
            http.run(None, ours, "ready", lambda: None, lifespan="off")
    assert capfd.readouterr() == ("", "")
