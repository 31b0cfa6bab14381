"""ONNX files that are sound, damaged, foreign and hostile; none of them is run."""

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_keras.errors import UserError
from fcn_keras.files.onnx_files import MAX_NUMBERS, is_onnx, read_onnx

TEXTS = {"labels": '{"names": ["a", "b"]}', "provenance": "{}"}


def ends(name="images", kind=TensorProto.FLOAT, sides=("batch", "height", "width", 3)):
    return [helper.make_tensor_value_info(name, kind, sides)]


LOGITS = ends("logits", sides=("batch", "height", "width", 2))


def network(inputs=None, outputs=LOGITS):
    """A network as `export` writes it: two channels of the image times two numbers."""
    weights = numpy_helper.from_array(np.float32([[1, 0], [0, 2], [0, 0]]), "weights")
    typed = helper.make_tensor("typed", TensorProto.INT64, (2,), [1, -1])
    constant = helper.make_tensor("value", TensorProto.FLOAT, (), [1.0])
    nodes = [
        helper.make_node("Constant", [], ["one"], value=constant),
        helper.make_node("MatMul", ["images", "weights"], ["product"]),
        helper.make_node("Mul", ["product", "one"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "fcn", inputs or ends(), outputs, [weights, typed])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    helper.set_model_props(model, TEXTS)
    return model


SOUND = network().SerializeToString()


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        return read_onnx(path)

    return read


def test_classes_and_texts_are_read(read):
    assert read(SOUND) == (2, TEXTS)


def test_which_names_are_those_of_such_files(tmp_path):
    (tmp_path / "run.onnx").mkdir()
    assert [is_onnx(tmp_path / name) for name in ("m.onnx", "run.onnx", "m.keras")] == [1, 0, 0]


def weights_elsewhere(model):
    [weights, _] = model.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")


def weights_said_to_be_elsewhere(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def constant_elsewhere(model):
    tensor = model.graph.node[0].attribute[0].t
    tensor.external_data.add(key="location", value="/etc/passwd")


def foreign_operator(model):
    model.graph.node[0].domain = "com.microsoft"


def branch(model):
    node = helper.make_node("If", ["one"], ["x"], then_branch=model.graph, else_branch=model.graph)
    model.graph.node.append(node)


def function(model):
    model.functions.add(name="f", domain="")


def training(model):
    model.training_info.add()


def sparse(model):
    model.graph.sparse_initializer.add()


def text_tensor(model):
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, (1,), [b"x"]))


def more_numbers(model):
    model.graph.initializer[0].dims[0] = 4


def fewer_numbers(model):
    model.graph.initializer[0].dims[0] = 1


def terabytes(model):
    model.graph.initializer[1].dims[:] = [2**62, 4]


def negative(model):
    model.graph.initializer[0].dims[:] = [-3, -2]


def many_axes(model):
    model.graph.initializer[0].dims[:] = [2**62] * 10_000


def long_texts(model):
    model.metadata_props.add(key="k", value="x" * 2**20)


def half_a_character(model):
    model.metadata_props[0].value = "ü" * 9
    return model.SerializeToString().replace("ü".encode(), b"\xff\xff")


def two_graphs(model):
    graph = onnx.ModelProto(graph=model.graph)
    return model.SerializeToString() + graph.SerializeToString()


HOSTILE = {
    weights_elsewhere: "refused, as it has weights in another file",
    weights_said_to_be_elsewhere: "or in another file",
    constant_elsewhere: "weights in another file",
    foreign_operator: "an operator of 'com.microsoft'",
    branch: "a network within an operator",
    function: "functions of its own",
    training: "a program for training",
    sparse: "unknown field 15",
    text_tensor: "unknown field 6",
    more_numbers: "a tensor of 32 bytes that has 24",
    fewer_numbers: "a tensor of 8 bytes that has 24",
    terabytes: "a tensor of 147573952589676412928 bytes that has",
    negative: "a tensor of .* bytes that has 24",
    many_axes: "a tensor of 10000 axes",
    long_texts: "more than 1 MiB",
    half_a_character: "can't decode byte 0xff",
    two_graphs: "the field graph 2 times",
}


@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_files_are_refused(change, read):
    model = network()
    content = change(model) or model.SerializeToString()
    with pytest.raises(
        UserError, match=rf"m\.onnx: .*{HOSTILE[change]}.*Give a file that"
    ) as error:
        read(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


FOREIGN = {
    "a classifier": (ends("data", sides=("N", 3, 224, 224)), ends("prob", sides=("N", 1000))),
    "a detector": (ends(sides=(1, 3, 640, 640)), ends("output0", sides=(1, 84, 8400))),
    "bytes": (ends(kind=TensorProto.UINT8), LOGITS),
    "grey images": (ends(sides=("b", "h", "w", 1)), LOGITS),
    "one size": (ends(sides=(1, 320, 480, 3)), LOGITS),
    "two images": (ends() + ends("more"), LOGITS),
    "no classes": (None, ends("logits", sides=("b", "h", "w", "c"))),
    "no images": (None, []),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_networks_are_described(name, read):
    with pytest.raises(UserError, match=r"its network maps .* to .*, not float32 images"):
        read(network(*FOREIGN[name]).SerializeToString())


def test_a_file_that_ends_early_is_refused_or_lacks_texts(read):
    read_files = []
    for size in range(len(SOUND)):
        try:
            read_files.append(read(SOUND[:size]))
        except UserError:
            continue
    # It ends with the graph, the list of operators, and two texts.
    assert [len(file.metadata) for file in read_files] == [0, 0, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\3\4" + bytes(100),
        b"\xff" * 100,
        b"\x3a" + b"\xff" * 9 + b"\1",  # a graph of 2**64 bytes
        b"\x42\0" * MAX_NUMBERS,
        b"\x3a\xff\xff\xff\x7f",
    ],
)
def test_other_bytes_are_refused(content, read):
    with pytest.raises(UserError, match="not an ONNX file of fcn_keras, or a damaged one"):
        read(content)


@given(st.data())
def test_changed_bytes_are_read_or_refused(read, data):
    content = bytearray(SOUND)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        read(bytes(content))


@given(st.binary(max_size=127))
def test_any_bytes_as_a_graph_are_refused(read, content):
    with pytest.raises(UserError):
        read(bytes([0x3A, len(content)]) + content)
