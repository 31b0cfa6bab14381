"""Clients of TensorFlow Serving and of `fcn-keras serve`, over REST and gRPC."""

from __future__ import annotations

from fcn_keras.errors import UserError, missing_package


def connect(url: str, **options):
    """The client for an address: `http://`, `https://` or `grpc://`.

    Args:
        url: The server's address; a proxy's path before `/v1/models` is kept.
        **options: `model`, `version`, `label`, `timeout` and `retries` of `RestClient`.

    Raises:
        UserError: If the address is none of these, or `options` contradict each other.
    """
    scheme, _, host = url.partition("://")
    if "/v1/" in host:
        raise UserError(
            f"{url}: give only the server's address, the part before /v1/, and the model's name "
            "as --model."
        )
    if scheme in ("http", "https") and host:
        from fcn_keras.serving.client.rest import RestClient

        return RestClient(url, **options)
    if scheme == "grpc" and host:
        try:
            from fcn_keras.serving.client.grpc import GrpcClient
        except ImportError as error:
            what = f"{url}: gRPC, unlike http://,"
            raise missing_package(what, "tensorflow-serving-api", error) from error
        return GrpcClient(host, **options)
    raise UserError(f"{url}: not a server's address. Use http://, https:// or grpc://, and a host.")
