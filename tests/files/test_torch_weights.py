"""PyTorch's files, sound and hostile, read without PyTorch."""

import base64
import hashlib
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.torch_files import (
    Code,
    archive,
    call,
    instructions,
    named,
    older,
    pickled,
    storage,
    tensor,
)

from fcn_keras.errors import UserError
from fcn_keras.files.torch_weights import MAX_PICKLE_BYTES, check_hash, read_state_dict

TORCH_PYTHON = os.environ.get("TORCH_PYTHON")
SIX = np.arange(6, dtype=np.float32)
KINDS = {
    "torch.HalfStorage": np.float16,
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.LongStorage": np.int64,
}


def read(tmp_path, data: bytes):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return read_state_dict(path)


def imported() -> set[str]:
    """All modules, but for what `zipfile` decodes names with."""
    return {name for name in sys.modules if not name.startswith("encodings.")}


def message(tmp_path, data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, data)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'weights.pth'}: ") and "\n" not in text
    return text


def in_archive(code, **options) -> bytes:
    """An archive with the state dict `{"w": code}` and a storage of six floats."""
    return archive(pickled({"w": code}), {"0": SIX.tobytes()}, **options)


def in_older(code) -> bytes:
    return older({"w": code}, {"0": (6, SIX.tobytes())})


FORMS = {"archive": in_archive, "older": in_older}


@pytest.mark.parametrize("form", FORMS)
def test_views_of_a_storage(tmp_path, form):
    def view(*arguments):
        return read(tmp_path, FORMS[form](tensor("0", 6, *arguments)))["w"]

    np.testing.assert_array_equal(view((2, 3), (3, 1)), SIX.reshape(2, 3))
    np.testing.assert_array_equal(view((3, 2), (1, 3)), SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(view((2,), (2,), 1), [1, 3])
    np.testing.assert_array_equal(view((), (), 5), 5)
    assert view((0, 3), (3, 1)).shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_types(tmp_path, kind):
    numbers = np.array([1, -2, 3], KINDS[kind])
    code = tensor("7", 3, (3,), (1,), kind=kind)
    data = archive(pickled({"w": code}), {"7": numbers.tobytes()})
    for file in (data, older({"w": code}, {"7": (3, numbers.tobytes())})):
        found = read(tmp_path, file)["w"]
        np.testing.assert_array_equal(found, numbers)
        assert found.dtype == KINDS[kind]


def test_bfloat16_becomes_float32(tmp_path):
    data = struct.pack("<3H", 0x3F80, 0xC000, 0x4049)
    code = tensor("0", 3, (3,), (1,), kind="torch.BFloat16Storage")
    found = read(tmp_path, archive(pickled({"w": code}), {"0": data}))["w"]
    np.testing.assert_array_equal(found, np.array([1, -2, 3.140625], np.float32))


def test_big_endian(tmp_path):
    data = archive(
        pickled({"w": tensor("0", 6, (6,), (1,))}),
        {"0": SIX.astype(">f4").tobytes()},
        more=[("archive/byteorder", "big")],
    )
    found = read(tmp_path, data)["w"]
    np.testing.assert_array_equal(found, SIX)
    assert found.dtype.isnative


def test_parameters_metadata_and_shared_storages(tmp_path):
    view = tensor("0", 6, (3,), (1,))
    parameter = call("torch._utils._rebuild_parameter", view, True, call("collections.OrderedDict"))
    code = call("collections.OrderedDict") + instructions({"a": parameter, "b": view})[1:]
    code = Code(code + instructions({"_metadata": {"": {"version": 2}}}) + b"b")
    for data in (
        archive(pickled(code), {"0": SIX.tobytes()}),
        older(code, {"0": (6, SIX.tobytes())}),
    ):
        found = read(tmp_path, data)
        assert list(found) == ["a", "b"]
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
        np.testing.assert_array_equal(found["b"], [0, 1, 2])


# Written by PyTorch 2.13.0: {"w": 2x3 floats, "n": an int64}.
REAL = {
    "archive": (
        "c-o~@J#W)M7(Uyn<GM6W3sOplZb*()Qrk%!N<~u{<i$vYBBYANavhUcxN*+8q=G3Dq7oZj5DSR^zyLeHfCVwIF;p"
        "z@7r3(<*LKvTEvGoA#P9Rr_uj`1oyh>eabRra!4fcitL+Tz^`?o;QumpwsX6c@v4*r|d9G_)$niQo{(;}LeY<(ju"
        "@DbIaR*YuE``YsAZ;NJvz3fKa@-zo`1W4kahnFRJ3Y@g1~LyBLD<dW;vTLvTQ<yu5MFaV6Fmz5<l#&}C_;9Z!MoM"
        "%!>rCC$UW47PV3AeoYfhfI)wb|HZd@V;FTRXAAmYA*Ty345%GPm(~5W(f)WYl+gY7La1rwriy_Anf>(FowSK9gXS"
        "vn)cYplBmE>xi*}VdokGfZS>iPR7G6uHa!(GzU+0!OUg!1#>pD&3xHIZ@!)J`c+dSsZc)9UQo9i*w{)X|)4DHUR%"
        "egJ>dSc0BtU=h?K1AEVr?UBRQ)XmH2j+W~n<l4l;t2@80vsi_l=phHT5>vS@YU=I(Fc7j1>-cLMfABTL*T-$*sPN"
        "|aXc^yFp5kaN=}6L4;oOe0CoDv-`~BD>0^CHs1+W?EMH5xKYzxXfQU3O!^?3UEuLAjW0E0*E*}j7(@P$dzZ#Yd&E"
        "nU!vSXCrRyj7LUinO8B#Hzee5yi4nmX&H*l4}*EB2_9ig}D55*tj8JA41@gB4#6>@l@u=oTuMoX>>e*g#>bo0%zq"
        "oO%e~$N`mAlPBNC<G*3JTiwT}38jJ@p4UbQ4E&+c_gH(3X*!Tn{u>zCAN@;9-h87aocQNc4y^A01YVw&gV9L-nbe"
        "3HkjVN<7LUO5njt=)PnNj4}Abnri@OSw3onb=^7u1Kf{{SsThTQ"
    ),
    "older": (
        "c-n1{J5R$f5XbXs1BRCJSlAfTr7CHm%|r*(#XQU61w|#b8lx!gB~B4Yl{!_xXJBCDtML(#7`U`hG4$j+%jdiM{q3"
        "poN}}(#?$^Qn$JKsqYMg(X7$=}PtfFb!D3MAAGV;efNrj9-#{yQun@A`Xai7Nn(T~A+W(1S!am4*pJn<CF30Mv*U"
        "@{G5qM$$xX5vZ23X0TXRz5?<L$IlpWylN=6Y)SHB_)^1fG2!#Dgs47tM)*5n2sF}U<67gL0I!MC8Cu03BSukH1HL"
        "VQ<?Z<mw@Rw%+A4B*&lMS7A>S3$-cT-BncE)8Ed>|t94v&d54X5vt5VcTw^fGP*(9m!P+&|s6ovctW%TfGaxTvE@"
        "wl*W)DhpO)->1M23HuGkn#OvbCffd7j&H>kYRKmC&X-PT$7q)#_s6j)L7D?BzdkoB#fbHhq<1gV%Bqx!J#aQTuPx"
        "6AT?(=u`Cf&JT_Oe|G"
    ),
}


@pytest.mark.parametrize("form", REAL)
def test_what_pytorch_wrote(tmp_path, form):
    found = read(tmp_path, zlib.decompress(base64.b85decode(REAL[form])))
    np.testing.assert_array_equal(found["w"], [[0, 1, 2], [3, 4, 5]])
    assert found["n"] == 7 and found["n"].dtype == np.int64


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state", "model_state_dict"])
def test_a_checkpoint(tmp_path, key):
    state = {"w": tensor("0", 6, (6,), (1,))}
    args = Code(named("argparse.Namespace") + b")\x81" + instructions({"lr": 0.1}) + b"b")
    optimizer = {"state": {0: {"momentum_buffer": tensor("1", 2, (2,), (1,))}}}
    content = {"epoch": 3, "args": args, "optimizer": optimizer, key: state}
    content["milestones"] = call("collections.Counter", {3: 1})
    data = archive(pickled(content), {"0": SIX.tobytes(), "1": b"12345678"})
    assert list(read(tmp_path, data)) == ["w"]
    content["state_dict" if key != "state_dict" else "model"] = state
    data = archive(pickled(content), {"0": SIX.tobytes(), "1": b"12345678"})
    assert "several (state_dict, model" in message(tmp_path, data)


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, {"w": 1.5}, [1], None, "text", {"a": {}}])
def test_no_state_dict(tmp_path, content):
    text = message(tmp_path, archive(pickled(content)))
    assert "none found" in text and "torch.save(model.state_dict()" in text


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"<html>", b"\x89PNG\r\n", b"x" * 600, pickle.dumps({"w": 1}, 2)]
)
def test_other_files(tmp_path, data):
    assert "not a file that torch.save" in message(tmp_path, data)


def test_an_archive_of_something_else(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("config.json", "{}")
    assert "not a file that torch.save" in message(tmp_path, file.getvalue())


def test_torchscript(tmp_path):
    data = archive(pickled({}), more=[("archive/constants.pkl", pickled(()))])
    assert "TorchScript" in message(tmp_path, data)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UserError, match="not a file"):
            read_state_dict(path)


@pytest.mark.parametrize("form", FORMS)
def test_each_truncation(tmp_path, form):
    data = FORMS[form](tensor("0", 6, (2, 3), (3, 1)))
    for length in range(len(data)):
        message(tmp_path, data[:length])


BAD_VIEWS = {
    "beyond the end": ((7,), (1,)),
    "an offset beyond the end": ((6,), (1,), 1),
    "strides beyond the end": ((2, 3), (4, 1)),
    "a repeated number": ((7,), (0,)),
    "a huge repetition": ((2**40, 2**20), (0, 0)),
    "a negative size": ((-1,), (1,)),
    "two negative sizes": ((-2, -3), (3, 1)),
    "a negative stride": ((6,), (-1,), 5),
    "a negative offset": ((6,), (1,), -1),
    "a huge size": ((2**62,), (1,)),
    "a product of 2**64": ((2**32, 2**32), (0, 0)),
    "a number of 2,000 bits": ((2**2000,), (1,)),
    "a huge stride": ((2,), (2**61,)),
    "more strides than sizes": ((6,), (1, 1)),
    "no numbers": (("6",), (1,)),
    "no tuples": ([6], [1]),
    "many axes": ((1,) * 70, (1,) * 70),
    "an empty one of huge size": ((0, 2**62, 2**62), (1, 1, 1)),
}


@pytest.mark.parametrize("view", BAD_VIEWS)
@pytest.mark.parametrize("form", FORMS)
def test_views_outside_their_storage(tmp_path, form, view):
    assert "damaged" in message(tmp_path, FORMS[form](tensor("0", 6, *BAD_VIEWS[view])))


@pytest.mark.parametrize("count", [5, 7, 0, -6, 2**61, 2**64, "6", None, 6.0])
@pytest.mark.parametrize("form", FORMS)
def test_storages_of_another_size(tmp_path, form, count):
    assert "damaged" in message(tmp_path, FORMS[form](tensor("0", count, (1,), (1,))))


BAD_STORAGES = {
    "one that is not there": storage("1", 6),
    "a path": storage("../data/0", 6),
    "a key that is no text": storage(0, 6),
    "another kind of reference": Code(instructions(("module", named("torch.FloatStorage"))) + b"Q"),
    "no tuple": Code(instructions("0") + b"Q"),
    "a type that is none": storage("0", 6, "collections.OrderedDict"),
    "a view of a storage": storage("0", 6, "torch.FloatStorage", ("1", 0, 6)),
    "a text as type": Code(instructions(("storage", "torch.FloatStorage", "0", "cpu", 6)) + b"Q"),
    "no storage": instructions({}),
}


@pytest.mark.parametrize("bad", BAD_STORAGES)
@pytest.mark.parametrize("form", FORMS)
def test_bad_references_to_storages(tmp_path, form, bad):
    arguments = (Code(BAD_STORAGES[bad]), 0, (6,), (1,), False, {})
    code = call("torch._utils._rebuild_tensor_v2", *arguments)
    assert "damaged" in message(tmp_path, FORMS[form](code))


def hostile(folder) -> dict[str, bytes]:
    """Instructions that make `folder` if they are run, and what the message names."""
    text = instructions(str(folder))
    mkdir = b"(" + text + b"t"
    return {
        "os.mkdir": b"cos\nmkdir\n" + mkdir + b"R",
        "posix.mkdir": b"cposix\nmkdir\n" + mkdir + b"R",
        "builtins.eval": b"cbuiltins\neval\n(" + _text(f"__import__('os').mkdir({str(folder)!r})"),
        "INST": b"(" + text + b"ios\nmkdir\n",
        "OBJ": b"(" + b"cpathlib\nPosixPath\n" + text + b"o",
        "pathlib.PosixPath": b"cpathlib\nPosixPath\n(" + text + b"t\x81",
        "os.system": instructions("os")
        + instructions("system")
        + b"\x93"
        + b"("
        + _text(f"mkdir {folder}"),
    }


def _text(text: str) -> bytes:
    return instructions(text) + b"tR"


HOSTILE = list(hostile("x"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", FORMS)
def test_code_is_not_run(tmp_path, form, name):
    victim = tmp_path / "victim"
    code = Code(hostile(victim)[name])
    if name not in ("OBJ", "pathlib.PosixPath"):  # which make an object only
        pickle.loads(pickled(code))
        victim.rmdir()  # so it would run
    modules = imported()
    sound = tensor("0", 6, (6,), (1,))
    for data in (
        FORMS[form](code),
        FORMS[form](Code(code + b"0" + sound)),  # its result is dropped
        FORMS[form](Code(instructions([code]) + b"b" + sound)),
        FORMS[form](Code(call("collections.OrderedDict") + code + b"b")),
    ):
        text = message(tmp_path, data)
        assert "may run code: " in text and "torch.save(model.state_dict()" in text
    shown = {"INST": "INST os mkdir", "OBJ": "pathlib.PosixPath"}.get(name, name)
    assert shown in message(tmp_path, FORMS[form](code))
    assert not victim.exists() and imported() == modules


def test_a_whole_model(tmp_path):
    model = Code(named("torchvision.models.resnet.ResNet") + b")\x81" + instructions({}) + b"b")
    text = message(tmp_path, archive(pickled(model)))
    assert "torchvision.models.resnet.ResNet" in text and "torch.save(model.state_dict()" in text


KNOWN = [
    *("collections.OrderedDict", "torch._utils._rebuild_parameter", "torch.FloatStorage"),
    *("torch._utils._rebuild_tensor_v2", "argparse.Namespace", "collections.Counter"),
]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("arguments", [(), (1,), ({},), (None, 1, (1,), (1,)), ([["a", 1]],)])
def test_known_names_with_other_arguments(tmp_path, name, arguments):
    for code in (
        call(name, *arguments),
        Code(named(name) + instructions(arguments) + b"\x81"),
        Code(named(name) + instructions(arguments)),
    ):
        message(tmp_path, archive(pickled({"w": code})))


BAD_INSTRUCTIONS = {
    "nothing": b"",
    "an empty stack": b"0",
    "a mark only": b"(",
    "no mark": b"t",
    "a memo that is empty": b"h\x05",
    "a name without an end": b"cos",
    "a name that is not ASCII": b"c\xff\xfe\nx\n",
    "an odd number of items": b"}(X\1\0\0\0au",
    "items of a list": b"](X\1\0\0\0aNu",
    "elements of a dict": b"}(Ne",
    "a text of 4 GB": b"X\xff\xff\xff\xffa",
    "a text of 2**63 bytes": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa",
    "an unknown instruction": b"\xff",
    "a call of nothing": b"NNR",
    "a call of a text": instructions("os.system") + b"(NtR",
    "an extension": b"\x82\x01",
    "a persistent id in text": b"P1\n",
    "a tensor's attributes": tensor("0", 6, (6,), (1,)) + b"}b",
}


@pytest.mark.parametrize("bad", BAD_INSTRUCTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_bad_instructions(tmp_path, form, bad):
    message(tmp_path, FORMS[form](Code(BAD_INSTRUCTIONS[bad])))
    message(tmp_path, archive(b"\x80\x02" + BAD_INSTRUCTIONS[bad] + b"."))
    message(tmp_path, archive(BAD_INSTRUCTIONS[bad]))


DEEP = 100_000
TWICE = b"".join(b"h\0h\0\x86q\0" for _ in range(1000))  # (t, t), a thousand times
BOMBS = {
    "nested lists": b"]" * DEEP + b"a" * (DEEP - 1),
    "nested tuples": b")" + b"\x85" * DEEP,
    "marks": b"(" * DEEP,
    "marks and tuples": b"(" * DEEP + b"t" * DEEP,
    "nested dicts": b"}" + b"X\1\0\0\0a}" * DEEP + b"s" * DEEP,
    "a list within itself": b"]q\0h\0a",
    "a dict within itself": b"}q\0X\5\0\0\0modelh\0s",
    "a tuple of tuples of the same": b")q\0" + TWICE,
    "a key that takes ages to hash": b")q\0" + TWICE + b"}h\0Ns",
    "a list that grows": b"]q\0(" + b"h\0" * DEEP + b"e",
    "many lists": b"(" + b"]" * (MAX_PICKLE_BYTES - 100) + b"l",
    "many empty tuples": b"(" + b")" * (MAX_PICKLE_BYTES - 100) + b"t",
    "many marks": b"(" * (MAX_PICKLE_BYTES - 100),
    "a large pickle": b")0" * MAX_PICKLE_BYTES,
    "many memos": b")" + b"".join(b"r" + struct.pack("<I", n) for n in range(2**18)),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("form", FORMS)
def test_bombs(tmp_path, form, bomb):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    content = Code(BOMBS[bomb])
    message(tmp_path, archive(pickled(content)) if form == "archive" else older(content))
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compressed_archives(tmp_path, compression):
    code = tensor("0", 2**24, (2**24,), (1,), kind="torch.ByteStorage")
    data = archive(pickled({"w": code}), {"0": bytes(2**24)}, compression=compression)
    assert len(data) < 2**15 and "compressed" in message(tmp_path, data)


def test_entries_that_overlap(tmp_path):
    """A thousand entries that are the same bytes of the file."""
    numbers = bytes(40_000)
    state = {f"w{n}": tensor(str(n), 10_000, (10_000,), (1,)) for n in range(100)}
    data = archive(pickled(state), {"0": numbers, **{str(n): b"" for n in range(1, 100)}})
    file = zipfile.ZipFile(io.BytesIO(data))
    first = file.getinfo("archive/data/0")
    directory = b"".join(
        struct.pack(
            *("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, entry.CRC, size, size),
            *(len(entry.filename), 0, 0, 0, 0, 0, at),
        )
        + entry.filename.encode()
        for entry in file.infolist()
        for size, at in [
            (first.file_size, first.header_offset)
            if "/data/" in entry.filename
            else (entry.file_size, entry.header_offset)
        ]
    )
    count = len(file.infolist())
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), file.start_dir, 0)
    assert "more bytes than the file has" in message(
        tmp_path, data[: file.start_dir] + directory + end
    )


def test_tensors_that_share_a_storage_many_times(tmp_path):
    state = {f"w{n}": tensor("0", 10_000, (10_000,), (1,)) for n in range(100)}
    data = archive(pickled(state), {"0": bytes(40_000)})
    assert "tensors claim 4000000 bytes" in message(tmp_path, data)


def test_a_large_directory(tmp_path):
    more = [(f"archive/{n:050000}", b"") for n in range(100)]
    data = in_archive(tensor("0", 6, (6,), (1,)), more=more)
    assert "too many entries" in message(tmp_path, data)


def test_encrypted_and_doubled_entries(tmp_path):
    data = bytearray(in_archive(tensor("0", 6, (6,), (1,))))
    data[6] |= 1  # the flag in the first local header, and in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "damaged" in message(tmp_path, bytes(data))
    doubled = [("archive/data.pkl", pickled({}))]
    with pytest.warns(UserWarning, match="Duplicate"):
        data = in_archive(tensor("0", 6, (6,), (1,)), more=doubled)
    message(tmp_path, data)
    data = in_archive(tensor("0", 6, (6,), (1,)), more=[("other/data.pkl", pickled({}))])
    assert "not a file that torch.save" in message(tmp_path, data)


@pytest.mark.parametrize("folder", ["..", "../..", "/tmp", "a/b", ""])
def test_names_that_lead_elsewhere(tmp_path, folder):
    """Nothing is ever extracted."""
    data = in_archive(tensor("0", 6, (6,), (1,)), folder=folder)
    if folder == "..":
        np.testing.assert_array_equal(read(tmp_path, data)["w"], SIX)
    else:
        message(tmp_path, data)
    assert os.listdir(tmp_path) == ["weights.pth"]


def test_damaged_numbers(tmp_path):
    data = in_archive(tensor("0", 6, (6,), (1,)))
    assert "CRC" in message(tmp_path, data.replace(SIX.tobytes(), SIX[::-1].tobytes()))


def test_names_with_control_characters(tmp_path):
    text = message(tmp_path, archive(pickled({"\x1b[31m\n\udcff" * 1000: 1})))
    assert "\x1b" not in text and len(text) < 6000
    text = message(tmp_path, archive(b"\x80\x02cos\x1b[31m\nsystem\n)R."))
    assert "\x1b" not in text


LIKELY = st.sampled_from([bytes([code]) for code in b"()]}.0NQRabcehijoqrstu\x80\x81\x85\x86\x93"])


@st.composite
def mutations(draw, data: bytes) -> bytes:
    """A file with a few changed, inserted, doubled or dropped parts."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 4))
        new = draw(st.one_of(LIKELY, st.binary(max_size=4), st.just(data[start : start + 40])))
        data = data[:start] + new + data[end:]
    return data


CONTENT = {"w": tensor("0", 6, (2, 3), (3, 1)), "n": tensor("1", 1, (), (), 0, "torch.LongStorage")}
STORAGES = {"0": SIX.tobytes(), "1": bytes(8)}
FILES = [
    mutations(archive(pickled(CONTENT), STORAGES)),
    mutations(older(CONTENT, {"0": (6, SIX.tobytes()), "1": (1, bytes(8))})),
    mutations(pickled(CONTENT)).map(lambda data: archive(data, STORAGES)),
]


@given(st.one_of(FILES))
def test_fuzzed_files(tmp_path, data):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    modules = imported()
    try:
        found = read_state_dict(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert sum(array.nbytes for array in found.values()) <= len(data)
    assert imported() == modules and os.listdir(tmp_path) == ["weights.pth"]


def test_hashes_in_names(tmp_path):
    path = tmp_path / "downloaded.part"
    path.write_bytes(b"weights")
    found = hashlib.sha256(b"weights").hexdigest()
    check_hash(path, f"fcn_resnet50_coco-{found[:8]}.pth")
    check_hash(path, f"resnet-{found}.pth")
    with pytest.raises(UserError, match=f"SHA-256 begins with {found[:8]}"):
        check_hash(path, "fcn_resnet50_coco-1167a1af.pth")
    with pytest.raises(ValueError, match="no hash"):
        check_hash(path, "weights.pth")


SAVE = """
import argparse, sys, numpy, torch, torchvision
folder = sys.argv[1]
torch.manual_seed(0)
network = torchvision.models.segmentation.fcn_resnet50(
    weights=None, weights_backbone=None, aux_loss=True
)
state = network.state_dict()
state["half"], state["view"] = torch.randn(3, 4).half(), torch.randn(4, 6)[1:, ::2].t()
state["bfloat16"], state["empty"] = torch.randn(5).bfloat16(), torch.empty(0, 3)
state["parameter"] = torch.nn.Parameter(torch.randn(2))
optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
network.train()(torch.zeros(2, 3, 32, 32))["out"].sum().backward()
optimizer.step()
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
checkpoint = {
    "model": state, "optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(),
    "epoch": 1, "args": argparse.Namespace(lr=0.1, device="cpu", resume=None),
}
for zipped in (True, False):
    name = f"{folder}/{'archive' if zipped else 'older'}"
    torch.save(state, f"{name}.pth", _use_new_zipfile_serialization=zipped)
    torch.save(checkpoint, f"{name}_checkpoint.pth", _use_new_zipfile_serialization=zipped)
loaded = torch.load(f"{folder}/older.pth", weights_only=True)
numpy.savez(f"{folder}/wanted.npz", **{
    name: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy()
    for name, t in loaded.items()
})
"""


@pytest.mark.slow
@pytest.mark.skipif(not TORCH_PYTHON, reason="needs TORCH_PYTHON, a Python with torchvision")
def test_equals_torch_load(tmp_path):
    subprocess.run([TORCH_PYTHON, "-B", "-c", SAVE, tmp_path], check=True)
    wanted = dict(np.load(tmp_path / "wanted.npz"))
    for name in ("archive", "older", "archive_checkpoint", "older_checkpoint"):
        found = read_state_dict(tmp_path / f"{name}.pth")
        assert list(found) == list(wanted)
        for key, array in wanted.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_array_equal(found[key], array)
