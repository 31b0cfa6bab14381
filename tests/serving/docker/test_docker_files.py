"""The files that start TensorFlow Serving, read as the server and Docker would read them."""

import configparser
import contextlib
import http.server
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers
from tensorflow_serving.config import model_server_config_pb2

import fcn_keras.serving

FOLDER = Path(fcn_keras.serving.__file__).parent / "docker"

# From the list of flags in tensorflow_serving/model_servers/main.cc.
FLAGS = {
    "allow_version_labels_for_unavailable_models": "bool",
    "batching_parameters_file": "path",
    "enable_batching": "bool",
    "enable_model_warmup": "bool",
    "grpc_channel_arguments": "text",
    "model_base_path": "path",
    "model_config_file": "path",
    "model_config_file_poll_wait_seconds": "int",
    "model_name": "text",
    "monitoring_config_file": "path",
    "port": "int",
    "rest_api_num_threads": "int",
    "rest_api_port": "int",
    "rest_api_timeout_in_ms": "int",
    "tensorflow_inter_op_parallelism": "int",
    "tensorflow_intra_op_parallelism": "int",
}
FORMS = {"bool": r"true|false", "int": r"[1-9]\d*", "path": r"/config/[\w.]+", "text": r".+"}

# tensorflow-serving-api lacks these two. From monitoring_config.proto in tensorflow_serving/config
# and session_bundle_config.proto in tensorflow_serving/servables/tensorflow.
MESSAGES = {
    "PrometheusConfig": ["enable bool 1", "path string 2"],
    "MonitoringConfig": ["prometheus_config PrometheusConfig 1"],
    "BatchingParameters": [
        "max_batch_size Int64Value 1",
        "batch_timeout_micros Int64Value 2",
        "max_enqueued_batches Int64Value 3",
        "num_batch_threads Int64Value 4",
        "thread_pool_name StringValue 5",
        "allowed_batch_sizes int64s 6",
        "pad_variable_length_inputs bool 7",
    ],
}


def message_class(name):
    field_type = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "bool": field_type.TYPE_BOOL,
        "string": field_type.TYPE_STRING,
        "int64s": field_type.TYPE_INT64,
    }
    file = descriptor_pb2.FileDescriptorProto(name="copied.proto", package="copied")
    file.syntax = "proto3"
    file.dependency.append(wrappers.DESCRIPTOR.name)
    for message, fields in MESSAGES.items():
        added = file.message_type.add(name=message)
        for field, kind, number in map(str.split, fields):
            label = 3 if kind.endswith("s") else 1  # repeated, or optional
            entry = added.field.add(name=field, number=int(number), label=label)
            if kind in scalars:
                entry.type = scalars[kind]
            else:
                package = "google.protobuf" if kind.endswith("Value") else "copied"
                entry.type, entry.type_name = field_type.TYPE_MESSAGE, f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"copied.{name}"))


def parsed(name, message):
    return text_format.Parse((FOLDER / name).read_text(), message)


@pytest.fixture(scope="module")
def services():
    """The compose file's services, with the defaults of its variables."""
    yaml = pytest.importorskip("yaml")
    text = (FOLDER / "docker-compose.yml").read_text()
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))["services"]


def flags_of(service):
    return dict(flag.removeprefix("--").split("=", 1) for flag in service["command"])


def test_models_config():
    config = parsed("models.config", model_server_config_pb2.ModelServerConfig())
    [model] = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        "fcn",
        "/models/fcn",
        "tensorflow",
    )
    assert model.model_version_policy.latest.num_versions == 2
    assert dict(model.version_labels) == {"stable": 1}
    [policy] = re.findall(r"`(model_version_policy .*)`", (FOLDER / "README.md").read_text())
    versions = text_format.Parse(policy, model_server_config_pb2.ModelConfig())
    assert list(versions.model_version_policy.specific.versions) == [1, 4]


def test_monitoring_config():
    config = parsed("monitoring.config", message_class("MonitoringConfig")()).prometheus_config
    assert config.enable and config.path == "/monitoring/prometheus/metrics"
    assert f"8501{config.path}`" in (FOLDER / "README.md").read_text()


def test_batching_parameters():
    parameters = parsed("batching_parameters.txt", message_class("BatchingParameters")())
    assert parameters.max_batch_size.value == 8
    assert parameters.num_batch_threads.value >= 1
    assert not parameters.pad_variable_length_inputs


def test_every_flag_is_one_of_the_servers(services):
    for service in services.values():
        for flag, value in flags_of(service).items():
            assert re.fullmatch(FORMS[FLAGS[flag]], value), flag
            if FLAGS[flag] == "path":
                assert (FOLDER / Path(value).name).is_file()
    named = re.findall(r"--([a-z]+_[a-z_]+)", (FOLDER / "README.md").read_text())
    assert set(named) <= set(FLAGS) and "enable_batching" in named


def test_batching_is_off_unless_asked_for(services):
    serving, batching = services["serving"], services["batching"]
    assert not {"enable_batching", "batching_parameters_file"} & set(flags_of(serving))
    assert "profiles" not in serving and batching["profiles"] == ["batching"]
    changed = {"enable_batching", "batching_parameters_file", "enable_model_warmup"}
    assert flags_of(serving).items() <= flags_of(batching).items()
    assert set(flags_of(batching)) - set(flags_of(serving)) == changed
    assert flags_of(batching)["enable_batching"] == "true"
    assert flags_of(batching)["enable_model_warmup"] == "false"


def test_containers(services):
    ports = [port for service in services.values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)
    for service in services.values():
        inner = {port.split(":")[2] for port in service["ports"]}
        assert inner == {flags_of(service)["port"], flags_of(service)["rest_api_port"]}
        assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", service["image"])
        targets = {mount["target"]: mount["source"] for mount in service["volumes"]}
        assert targets == {"/models": "./models", "/config": "."}
        assert all(mount["read_only"] for mount in service["volumes"])
        assert service["cpus"] and service["mem_limit"]
        assert service["environment"] == {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}


@contextlib.contextmanager
def server(state):
    """Answers requests for the model's status as TensorFlow Serving does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/v1/models/fcn"
            self.send_response(200 if found else 404)
            self.end_headers()
            body = f'{{"model_version_status": [{{"version": "1", "state": "{state}"}}]}}'
            self.wfile.write(body.encode() if found else b"{}")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(not shutil.which("bash"), reason="the health check is in bash")
def test_health_check(services):
    kind, *command = services["serving"]["healthcheck"]["test"]
    assert kind == "CMD"

    def check(port):
        local = [word.replace("/8501", f"/{port}") for word in command]
        return subprocess.run(local, capture_output=True, timeout=5).returncode

    with server("AVAILABLE") as port:
        assert check(port) == 0
    assert check(port) != 0  # nothing listens
    with server("LOADING") as port:
        assert check(port) != 0


def test_the_files_are_part_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(Path(fcn_keras.serving.__file__).parents[2] / "setup.cfg")
    assert setup["options.package_data"]["fcn_keras.serving"] == "docker/*"
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "README.md",
        "batching_parameters.txt",
        "docker-compose.yml",
        "models.config",
        "monitoring.config",
    ]
