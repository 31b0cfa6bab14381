"""Limits of pixels and scans; kinds of files are in test_hostile_files."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from support.hostile_files import jpeg_of_scans
from support.image_files import encoded

from fcn_keras.errors import UserError
from fcn_keras.files import images


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """As if a decompression bomb were an image of more than 2,000 pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(images, "MAX_PIXELS", 2000)


BIG = Image.new("RGB", (60, 50), (9, 9, 9))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF"])
def test_more_than_pillow_accepts(kind):
    data = encoded(BIG, kind)
    for limit in (2000, 2999):
        with pytest.raises(UserError, match=f"big: more than {limit:,} pixels"):
            images.open_photograph(data, "big", limit)
        assert Image.MAX_IMAGE_PIXELS == 1000
    assert images.open_photograph(data, "big", 3000).size == (60, 50)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_less_than_pillow_accepts():
    data = encoded(BIG.resize((30, 30)), "PNG")
    for large in (data, encoded(BIG, "PNG")):
        with pytest.raises(UserError, match="small: more than 899 pixels"):
            images.open_photograph(large, "small", 899)
    assert images.open_photograph(data, "small", 900).size == (30, 30)


def test_many_threads_leave_the_limit_as_it_was():
    data = encoded(BIG, "TIFF")
    with ThreadPoolExecutor(8) as threads:
        opened = threads.map(lambda _: images.open_photograph(data, "big", 3000), range(200))
        assert {image.size for image in opened} == {(60, 50)}
    assert Image.MAX_IMAGE_PIXELS == 1000


KINDS = [{"progressive": True}, {}, {"keep_rgb": True, "progressive": True}]


@pytest.mark.parametrize("options", KINDS)
def test_scans_are_counted(options, tmp_path):
    path = tmp_path / "a.jpg"
    assert images.open_header(jpeg_of_scans(100, **options), "a").size == (32, 24)
    path.write_bytes(data := jpeg_of_scans(101, **options))
    for opened in (images.open_photograph, images.open_header):
        for source in (data, path):
            with pytest.raises(UserError, match="^a: a JPEG of 101 scans; .* baseline JPEG"):
                opened(source, "a")


def test_scans_beyond_the_first_megabyte_are_counted():
    data = jpeg_of_scans(101)
    start = data.index(images.SCAN_START)
    for shift in range(4):
        filling = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
        short = (2**20 - start - shift) % len(filling) - 4
        segment = b"\xff\xfe" + (short + 2).to_bytes(2) + bytes(short)
        shifted = data[:2] + filling * (2**20 // len(filling)) + segment + data[2:]
        assert shifted.index(images.SCAN_START) + shift in (2**20, 2**20 + len(filling))
        with pytest.raises(UserError, match="a JPEG of 101 scans"):
            images.open_header(shifted, "a")


def test_previews_and_what_follows_the_image_may_have_scans():
    preview = jpeg_of_scans(30)
    photo = jpeg_of_scans(10, progressive=True)
    segment = b"\xff\xe2" + (len(preview) + 2).to_bytes(2) + preview
    assert images.open_photograph(photo[:2] + segment + photo[2:] + preview, "a").size == (32, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 99])
def test_the_upright_size_is_the_photographs(kind, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a description"
    data = encoded(BIG.resize((30, 20)), kind, exif=exif)
    size = images.open_photograph(data, "a").size
    assert images.upright_size(data, "a") == size
    assert size == ((20, 30) if orientation in (6, 8) else (30, 20))
