"""Object stores for tests: memory:// and a real S3 server on this machine."""

import time

import pytest

SECRET = "sesame-street"


@pytest.fixture
def memory():
    """The store memory://, empty."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    return store


@pytest.fixture(scope="module")
def s3_server():
    """A real S3 server: moto's, over HTTP. Environment variables tell s3fs where it is."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "somebody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server):
    """An empty bucket."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3_server)
    name = f"videos-{time.monotonic_ns()}"
    client.create_bucket(Bucket=name)
    return S3(client, name)


class S3:
    def __init__(self, client, name):
        self.client, self.name = client, name

    def put(self, **objects):
        for key, content in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def fill(self, keys):
        """Put many small objects, past HTTP."""
        from moto.s3.models import s3_backends

        for key in keys:
            s3_backends["123456789012"]["aws"].put_object(self.name, key, b"x")

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def list(self, folder):
        """The keys below a folder."""
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=f"{folder}/")
        return [item["Key"] for item in found.get("Contents", ())]
