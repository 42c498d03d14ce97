"""S3's protocol on loopback: moto's server, reached as a real store is, by environment."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from pyarrow import fs


def serve(host: str = "127.0.0.1", port: int = 0) -> Any:
    """A server that has begun; what is in its store outlives it, in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    server.start()
    return server


@contextlib.contextmanager
def bucket_of(server: Any, name: str) -> Iterator[str]:
    """URI of an empty bucket; the environment, of this process and of its children, says where it is."""
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "somebody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "something")
        environment.setenv("AWS_REGION", "ap-northeast-2")
        filesystem, path = fs.FileSystem.from_uri(f"s3://{name}?allow_bucket_creation=true")
        filesystem.create_dir(path)
        yield f"s3://{name}"
