"""Data folders and paths that are broken, odd or malicious."""

import os
from pathlib import Path

from support.hostile_files import IDS, PNG
from support.image_files import encoded

MASK = encoded(IDS)
SPARSE = 2**31 + 1  # bytes, none of which are on the disk


def listed(text: str | bytes):
    """A folder whose train.txt contains this."""

    def damage(root: Path) -> None:
        content = text.encode() if isinstance(text, str) else text
        (root / "ImageSets/Segmentation/train.txt").write_bytes(content)

    return damage


def named(name: str):
    """A folder whose only image has this id."""

    def damage(root: Path) -> None:
        for folder, content in (("JPEGImages", PNG), ("SegmentationClass", MASK)):
            path = root / folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        listed(f"{name}\n")(root)

    return damage


def classes(text: str | bytes):
    def damage(root: Path) -> None:
        content = text.encode() if isinstance(text, str) else text
        (root / "classes.txt").write_bytes(content)

    return damage


def replaced(name: str, by):
    """A folder with something else in place of a file."""

    def damage(root: Path) -> None:
        path = root / name
        path.unlink(missing_ok=True)
        by(path)

    return damage


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE)


def to_a_file_elsewhere(path: Path) -> None:
    target = path.parents[2] / f"elsewhere{path.suffix}"
    target.write_bytes(PNG)
    path.symlink_to(target)


def folder_elsewhere(root: Path) -> None:
    (root / "JPEGImages").rename(root.parent / "photos")
    (root / "JPEGImages").symlink_to(root.parent / "photos")


PHOTO, LIST, CLASSES = "JPEGImages/a.png", "ImageSets/Segmentation/train.txt", "classes.txt"
UTF16 = "a\n".encode("utf-16")


def many(count: int) -> str:
    return "".join(f"class {index}\n" for index in range(count))


FOLDERS = {
    "a list of 0 bytes": listed(""),
    "a list of blank lines": listed("\n \r\n"),
    "an id without an image": listed("a\nb\n"),
    "an id without a mask": lambda root: (root / "SegmentationClass/a.png").unlink(),
    "an id that is listed twice": listed("a\na\n"),
    "the id `../../secret`": listed("../../secret\n"),
    "an absolute path as id": listed("/etc/passwd\n"),
    "an id with a NUL": listed("a\0b\n"),
    "an id of 5,000 characters": listed("x" * 5000),
    "an id with a leading dash, spaces and letters like ü": named("-my photo ü"),
    "an id with an escape sequence of terminals": named("\x1b[31mred"),
    "an id in a subfolder, as in a/b": named("sub/b"),
    "a list with a BOM and Windows' line ends": listed(b"\xef\xbb\xbfa\r\n"),
    "a list in UTF-16": listed(UTF16),
    "a folder in place of a list": replaced(LIST, os.mkdir),
    "a pipe in place of a list": replaced(LIST, os.mkfifo),
    "a list of more than 2 GiB": replaced(LIST, sparse),
    "255 classes": classes(many(255)),
    "256 classes": classes(many(256)),
    "classes.txt of 0 bytes": classes(""),
    "classes.txt of more than 1 MiB": classes("x\n" * 600_000),
    "classes.txt in UTF-16": classes("a\nb\nc\n".encode("utf-16")),
    "a folder in place of classes.txt": replaced(CLASSES, os.mkdir),
    "a link to a device in place of classes.txt": replaced(
        CLASSES, lambda path: path.symlink_to("/dev/zero")
    ),
    "a class with a control character": classes("a\n\x1b[31mb\nc\n"),
    "a class with a name of 300 characters": classes("a\nb\n" + "c" * 300),
    "a colour without a name": classes("a\n\t1 2 3\nc\n"),
    "a colour of 5,000 digits": classes("a\nb\t1 2 " + "9" * 5000),
    "a table's title in classes.txt": classes("class\na\nb\nc\n"),
    "two classes of one colour": classes("a\t1 2 3\nb\t1 2 3\nc\n"),
    "classes.txt in CVAT's form": classes(
        "# label:color_rgb:parts:actions\na:1,2,3::\nb:::\nc:::\n"
    ),
    "two classes of one name": classes("a\na\nb\n"),
    "a photograph that is a folder": replaced(PHOTO, os.mkdir),
    "a photograph that is a pipe": replaced(PHOTO, os.mkfifo),
    "a photograph that links to a device": replaced(PHOTO, lambda p: p.symlink_to("/dev/zero")),
    "a photograph that links to nothing": replaced(PHOTO, lambda path: path.symlink_to("none")),
    "a photograph that links to itself": replaced(PHOTO, lambda path: path.symlink_to(path)),
    "a photograph that links to a file elsewhere": replaced(PHOTO, to_a_file_elsewhere),
    "a folder of photographs that is a link": folder_elsewhere,
    "a photograph of more than 2 GiB": replaced(PHOTO, sparse),
}


def photo(name: str | bytes):
    """A path to one photograph with this name."""

    def make(root: Path) -> list[str]:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(PNG)
        return [os.fsdecode(path)]

    return make


def place(make):
    """A path to something else."""

    def made(root: Path) -> list[str]:
        path = root / "a.png"
        make(path)
        return [str(path)]

    return made


def folder_with(make):
    """A path to a folder of one photograph and something else."""

    def made(root: Path) -> list[str]:
        (root / "in").mkdir()
        (root / "in" / "good.png").write_bytes(PNG)
        make(root / "in" / "odd.png")
        return [str(root / "in")]

    return made


def link_to_parent(path: Path) -> None:
    for name in ("one", "two"):
        (path.parent / name).symlink_to(path.parent, target_is_directory=True)


def through_parent(root: Path) -> list[str]:
    (root / "sub").mkdir()
    photo("a.png")(root)
    return [f"{root}/sub/../a.png"]


PATHS = {
    "a path to no file": lambda root: [str(root / "none.jpg")],
    "a pattern that fits nothing": lambda root: [str(root / "*.jpg")],
    "a pipe": place(os.mkfifo),
    "a device": lambda root: ["/dev/zero"],
    "a path with `../`": through_parent,
    "a name with a line break": photo("a\nb.png"),
    "a name that is not UTF-8": photo(b"a\xff.png"),
    "a name with an escape sequence of terminals": photo("\x1b[31ma.png"),
    "a folder with a folder named .png": folder_with(os.mkdir),
    "a folder with a pipe": folder_with(os.mkfifo),
    "a folder with a link to a photograph": folder_with(lambda path: path.symlink_to("good.png")),
    "a folder with a link to nothing": folder_with(lambda path: path.symlink_to("none")),
    "a folder with a link to itself": folder_with(lambda path: path.symlink_to(path)),
    "a folder with links to itself as folders": folder_with(link_to_parent),
    "a file of more than 2 GiB that is no image": place(sparse),
}
