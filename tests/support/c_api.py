"""Runs a SavedModel through TensorFlow's C API only: no graph code in Python.

    python c_api.py MODEL_DIR INPUT_TENSOR OUTPUT_TENSOR FILE_IN FILE_OUT [FILE_IN FILE_OUT ...]

It loads the model with the C++ loader that TF Serving uses, feeds the bytes of each
FILE_IN as a batch of one string and writes the first string of the output to FILE_OUT.
"""

import ctypes
import importlib.util
import sys
from pathlib import Path

TF_STRING = 7  # TF_DataType in tf_datatype.h
TSTRING_SIZE = 24  # sizeof(TF_TString) in ctstring_internal.h


class Output(ctypes.Structure):
    """TF_Output: an operation and the index of one of its outputs."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def load_library():
    folder = Path(importlib.util.find_spec("tensorflow").origin).parent
    for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
        library = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("TF_NewStatus", pointer, []),
        ("TF_GetCode", ctypes.c_int, [pointer]),
        ("TF_Message", ctypes.c_char_p, [pointer]),
        ("TF_NewGraph", pointer, []),
        ("TF_NewSessionOptions", pointer, []),
        ("TF_LoadSessionFromSavedModel", pointer, [pointer, pointer, ctypes.c_char_p, pointer]
         + [ctypes.c_int, pointer, pointer, pointer]),
        ("TF_GraphOperationByName", pointer, [pointer, ctypes.c_char_p]),
        ("TF_AllocateTensor", pointer, [ctypes.c_int, pointer, ctypes.c_int, ctypes.c_size_t]),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_StringInit", None, [pointer]),
        ("TF_StringCopy", None, [pointer, ctypes.c_char_p, ctypes.c_size_t]),
        ("TF_StringGetDataPointer", pointer, [pointer]),
        ("TF_StringGetSize", ctypes.c_size_t, [pointer]),
        ("TF_SessionRun", None, [pointer, pointer, pointer, pointer, ctypes.c_int, pointer]
         + [pointer, ctypes.c_int, pointer, ctypes.c_int, pointer, pointer]),
    ):  # fmt: skip
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def main(model, input_name, output_name, *files):
    tf = load_library()
    status = tf.TF_NewStatus()

    def check():
        if tf.TF_GetCode(status) != 0:
            sys.exit(tf.TF_Message(status).decode())

    graph = tf.TF_NewGraph()
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = tf.TF_LoadSessionFromSavedModel(
        tf.TF_NewSessionOptions(), None, model.encode(), tags, 1, graph, None, status
    )
    check()

    def output(name):
        operation, index = name.split(":")
        return Output(tf.TF_GraphOperationByName(graph, operation.encode()), int(index))

    for source, target in zip(files[::2], files[1::2], strict=True):
        data = Path(source).read_bytes()
        tensor = tf.TF_AllocateTensor(TF_STRING, (ctypes.c_int64 * 1)(1), 1, TSTRING_SIZE)
        tf.TF_StringInit(tf.TF_TensorData(tensor))
        tf.TF_StringCopy(tf.TF_TensorData(tensor), data, len(data))
        results = (ctypes.c_void_p * 1)()
        tf.TF_SessionRun(
            *(session, None),
            *((Output * 1)(output(input_name)), (ctypes.c_void_p * 1)(tensor), 1),
            *((Output * 1)(output(output_name)), results, 1),
            *(None, 0, None, status),
        )
        check()
        string = tf.TF_TensorData(results[0])
        answer = ctypes.string_at(tf.TF_StringGetDataPointer(string), tf.TF_StringGetSize(string))
        Path(target).write_bytes(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
