"""Pillow's limit of pixels, which is an argument here; kinds of files are in test_hostile_files."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
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
