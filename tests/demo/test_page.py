"""The page, in a real process and a real browser."""

import base64
import io
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import demo_model
from support.demo_model import LABELS

from fcn_keras.cli import main
from fcn_keras.data.overlay import overlay
from fcn_keras.inference.segmenter import Segmenter

pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
ALERT = "#message [role=alert]:not(:empty)"
DRAWN = "#picture canvas:not([hidden])"
SECONDS = 60  # for anything but the start of a server; a busy machine is slow


@pytest.fixture(scope="module")
def segmenter(run):
    return Segmenter.load(run)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    return demo_model.save_photograph(tmp_path_factory.mktemp("photo") / "street.jpg")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page for another user; no request may leave the machine."""
    contexts, foreign = [], []

    def note(request):
        if not request.url.startswith((f"{server.url}/", "data:", "blob:")):
            foreign.append(request.url)

    def open_page(width=1280, height=800):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        context.set_default_timeout(1000 * SECONDS)
        context.on("request", note)
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("#samples button")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not foreign
    assert "FOREIGN" not in server.log and "Traceback" not in server.log


def upload(page, file):
    page.set_input_files("#photograph input[type=file]", file)


def wait_for(page, condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "It did not happen."
        page.wait_for_timeout(50)  # during which events arrive


def wait_for_picture(page, expected):
    """Waits until the page's picture has these pixels, `(H, W, 3)`, within one level."""
    end, difference = time.monotonic() + SECONDS, "no picture"
    while time.monotonic() < end:
        if page.query_selector(DRAWN):
            file = page.evaluate("document.querySelector('canvas').toDataURL()").partition(",")[2]
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(file))))
            difference = f"{pixels.shape} for {expected.shape}"
            if pixels.shape[:2] == expected.shape[:2]:
                assert (pixels[..., 3:] == 255).all()
                away = np.abs(pixels[..., :3].astype(int) - expected).max(axis=-1)
                if away.max() <= 1:
                    return
                difference = f"{(away > 1).mean():.1%} of the pixels"
        time.sleep(0.05)
    pytest.fail(f"The picture differs: {difference}.")


def expected_picture(segmenter, photograph, opacity=0.5, shown=(1, 2)):
    image = np.asarray(Image.open(photograph).transpose(Image.Transpose.ROTATE_270))  # its EXIF's 6
    return overlay(image, segmenter(photograph), LABELS, opacity, shown)


def swatches(page):
    """The colours beside the toggles, from above."""
    style = "labels => labels.map(label => getComputedStyle(label, '::after').backgroundColor)"
    colors = page.locator("#classes label").evaluate_all(style)
    return [tuple(map(int, re.findall(r"\d+", color))) for color in colors]


def test_a_photograph_gets_the_overlay_shares_and_mask_of_predict(
    open_page, server, run, segmenter, photograph, tmp_path
):
    page = open_page()
    upload(page, photograph)
    wait_for_picture(page, expected_picture(segmenter, photograph))
    assert re.search(r"street.jpg: 120 × 200 pixels in \d+\.\d\d s", page.inner_text("#message"))
    assert page.title() == f"{run.name} · fcn_keras".replace("\x1b", " ")
    legend = page.locator("#classes label").all_inner_texts()
    shares = np.bincount(segmenter(photograph).ravel(), minlength=3) / (120 * 200)
    order = np.argsort(-shares)
    assert [text.strip() for text in legend] == [
        f"{LABELS.names[i]} {100 * shares[i]:.1f} %" for i in order
    ]
    assert swatches(page) == [LABELS.palette[i] for i in order]

    with page.expect_download() as download:
        page.click("#download")
    assert main(["predict", "--model", str(run), "--output", str(tmp_path), str(photograph)]) == 0
    written = (tmp_path / "street.png").read_bytes()
    assert Path(download.value.path()).read_bytes() == written
    assert download.value.suggested_filename == "street_mask.png"
    assert (np.asarray(Image.open(io.BytesIO(written))) == segmenter(photograph)).all()

    predictions = server.log.count("PREDICTION")
    page.fill("#opacity input[type=range]", "80")
    wait_for_picture(page, expected_picture(segmenter, photograph, 0.8))
    page.get_by_label("background").check()
    wait_for_picture(page, expected_picture(segmenter, photograph, 0.8, (0, 1, 2)))
    page.get_by_label("leaf").uncheck()
    wait_for_picture(page, expected_picture(segmenter, photograph, 0.8, (0, 2)))
    page.fill("#opacity input[type=range]", "0")
    wait_for_picture(page, expected_picture(segmenter, photograph, 0))
    assert server.log.count("PREDICTION") == predictions > 0

    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "street_overlay.png"
    saved = np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)
    assert np.abs(saved - expected_picture(segmenter, photograph, 0)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (9, 31), (700, 1400), (1600, 620)])
def test_the_browser_paints_as_every_overlay_is_painted(open_page, segmenter, tmp_path, size):
    """Even if lines are wider, hatched, at the border, between three classes or opaque."""
    file = demo_model.save_photograph(tmp_path / "a.jpg", seed=7, size=size)
    page = open_page()
    upload(page, file)
    wait_for_picture(page, expected_picture(segmenter, file))
    for box in page.locator("#classes input").all():
        box.check()
    for opacity in (10, 30, 50, 77, 100):
        page.fill("#opacity input[type=range]", str(opacity))
        wait_for_picture(page, expected_picture(segmenter, file, opacity / 100, (0, 1, 2)))
    for box in page.locator("#classes input").all():
        box.uncheck()
    wait_for_picture(page, expected_picture(segmenter, file, 1, ()))


def test_users_do_not_see_each_others_photographs(open_page, segmenter, photograph, tmp_path):
    other = demo_model.save_photograph(tmp_path / "other.jpg", seed=5, size=(90, 140))
    first, second = open_page(), open_page()
    upload(first, photograph)
    upload(second, other)
    wait_for_picture(first, expected_picture(segmenter, photograph))
    wait_for_picture(second, expected_picture(segmenter, other))
    first.fill("#opacity input[type=range]", "20")
    wait_for_picture(first, expected_picture(segmenter, photograph, 0.2))
    second.fill("#opacity input[type=range]", "100")
    wait_for_picture(second, expected_picture(segmenter, other, 1.0))


def drop(page, name, data, kind):
    transfer = page.evaluate_handle(
        """([name, data, kind]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: kind}));
            return transfer;
        }""",
        [name, base64.b64encode(data).decode(), kind],
    )
    page.dispatch_event("#photograph input", "drop", {"dataTransfer": transfer})


def test_wrong_files_get_a_message_and_a_good_one_works_after_them(
    open_page, segmenter, photograph
):
    page = open_page()
    page.click("#samples button >> nth=0")
    page.wait_for_selector(DRAWN)
    before = swatches(page)
    whole = photograph.read_bytes()
    drop(page, "notes <i>.txt", b"no picture", "text/plain")
    page.wait_for_selector(ALERT)
    assert not page.query_selector(f"{ALERT} i")
    assert "notes <i>.txt: not a readable image (unknown format)" in page.inner_text(ALERT)
    huge = io.BytesIO()
    Image.new("1", (20_000, 7_000)).save(huge, "PNG")
    files = [
        ("cut.jpg", whole[: len(whole) // 2], "cut.jpg: not a readable image"),
        ("huge.png", huge.getvalue(), "huge.png: more than 1,000,000 pixels"),
        ("empty.jpg", b"", "empty.jpg: not a readable image"),
    ]
    for name, data, text in files:
        upload(page, {"name": name, "mimeType": "image/jpeg", "buffer": data})
        page.locator(ALERT, has_text=text).wait_for()
    assert swatches(page) == before  # the last answer is still shown
    drop(page, "good.jpg", whole, "image/jpeg")
    wait_for_picture(page, expected_picture(segmenter, photograph))
    assert not page.query_selector(ALERT)


def test_names_are_text(open_page, server, browser, photograph):
    html = "<img src=x onerror=alert(1)>"
    page = open_page()
    model = page.evaluate("fetch('model.json').then((answer) => answer.json())")
    for each in model["classes"]:
        each["name"] = html
    about = {**model, "title": html, "samples": [html] * len(model["samples"])}
    page.route("**/model.json", lambda route: route.fulfill(json=about))
    page.reload()
    page.click("#samples button >> nth=0")
    page.wait_for_selector(DRAWN)
    assert html in page.inner_text("#message") and html in page.title()
    assert all(html in text for text in page.locator("#classes label").all_inner_texts())
    assert page.locator("#heading b").inner_text() == html
    assert page.get_attribute("#samples button >> nth=0", "title") == f"Sample {html}"
    assert not page.query_selector("[onerror]")


def test_a_phones_screen_is_wide_enough(open_page, segmenter, photograph):
    page = open_page(390, 700)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    name = "a_name_that_is_too_long_for_the_screen_of_a_telephone_and_has_no_spaces.jpg"
    upload(page, {"name": name, "mimeType": "image/jpeg", "buffer": photograph.read_bytes()})
    wait_for_picture(page, expected_picture(segmenter, photograph))
    assert page.evaluate(width) == 390
    parts = (
        "#photograph, #samples button, #message p, #picture canvas, #tools button, #opacity input, \
        #classes label, #download"
    )
    for selector in parts.split(","):
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["width"] > 40, selector


def test_the_keyboard_reaches_all_and_the_focus_is_seen(open_page, server):
    page, choosers = open_page(), []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # takes effect later
    where = """() => {
        const element = document.activeElement;
        const part = element.closest("#photograph, #samples, #opacity, #classes, #download");
        const outlined = element.closest("label") || element;
        const style = getComputedStyle(outlined);
        return [part && part.id, element.type, style.outlineStyle, parseInt(style.outlineWidth)];
    }"""

    def tab_to(part, kind):
        for _ in range(40):
            page.keyboard.press("Tab")
            found = page.evaluate(where)
            if found[:2] == [part, kind]:
                assert found[2] == "solid" and found[3] >= 2
                return
        pytest.fail(f"Tab does not reach {part}.")

    tab_to("photograph", "file")
    page.keyboard.press("Enter")
    wait_for(page, lambda: choosers)
    tab_to("samples", "button")
    page.keyboard.press("Enter")
    page.wait_for_selector(DRAWN)
    tab_to("opacity", "range")
    picture = "document.querySelector('canvas').toDataURL()"
    for key, part, kind in (
        ("ArrowRight", "classes", "checkbox"),
        ("Space", "download", "button"),
    ):
        before = page.evaluate(picture)
        page.keyboard.press(key)
        page.wait_for_function(f"before => {picture} != before", arg=before)
        tab_to(part, kind)
    with page.expect_download():
        page.keyboard.press("Enter")


def test_what_is_under_way_is_seen_and_can_be_replaced(open_page, segmenter, photograph):
    page = open_page()
    held = []
    page.route("**/predict?*", lambda route: held.append(route))  # without an answer
    page.click("#samples button >> nth=0")
    page.locator("[role=status]", has_text="Segmenting scene_1.jpg …").wait_for()
    assert page.is_visible("progress")
    upload(page, photograph)
    wait_for_picture(page, expected_picture(segmenter, photograph))
    held[0].fulfill(status=503, body="too late")
    page.evaluate("fetch('model.json')")
    assert not page.is_visible("progress") and not page.query_selector(ALERT)
    page.unroute_all()
    page.route("**/predict?*", lambda route: route.fulfill(status=503, body="Too many <b>."))
    page.click("#samples button >> nth=0")
    page.locator(ALERT, has_text="scene_1.jpg: Too many <b>.").wait_for()
    page.unroute_all()
    page.route("**/predict?*", lambda route: route.abort())
    page.click("#samples button >> nth=0")
    page.locator(ALERT, has_text="scene_1.jpg: no answer. Is fcn-keras demo still").wait_for()
    assert not page.is_visible("progress")


def test_a_page_from_elsewhere_starts_no_prediction(browser, server):
    """Even if it may ignore the page's own policy."""
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(server.url.replace("127.0.0.1", "localhost"))
    ask = """url => fetch(url, {method: "POST", mode: "no-cors"}).then(
        (answer) => answer.type, () => "refused")"""
    before = server.log.count("PREDICTION")
    assert page.evaluate(ask, f"{server.url}/predict?sample=0") == "refused"
    assert server.log.count("PREDICTION") == before
    assert page.evaluate(ask, "/predict?sample=0") == "basic"
    wait_for(page, lambda: server.log.count("PREDICTION") > before)
    context.close()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_although_a_page_is_open(browser, run, number):
    with demo_model.serving("--model", run) as server:
        page = browser.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.goto(server.url)
        page.click("#samples button >> nth=0")
        page.wait_for_selector(DRAWN)
        server.process.send_signal(number)
        assert server.process.wait(SECONDS) == 0
        server.reader.join(SECONDS)
        assert server.log.endswith("Stopped.\n")
        page.click("#samples button >> nth=1")
        page.locator(ALERT, has_text="no answer").wait_for()
        page.close()
