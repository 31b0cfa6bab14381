"""A page of `fcn-keras report`, read by an HTML parser."""

import base64
import html.parser
import io

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br", "line", "link", "input", "circle", "polyline"}


class Page(html.parser.HTMLParser):
    """What a page shows: texts by tag, tables, images, and everything that it would load."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.rows, self.images, self.open = [], {}, [], [], []
        self.headings, self.loaded, self.inline_code = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.inline_code += [name for name in attributes if name.startswith("on")]
        self.loaded += [v for k, v in attributes.items() if k in ("src", "href", "srcset", "data")]
        if tag == "img":
            self.images.append(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        tag = self.open[-1] if self.open else ""
        self.texts[tag] = self.texts.get(tag, "") + data
        if self.rows and {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, name):
        return next(row for row in self.rows if row[0] == name)

    def text(self):
        return " ".join(text for tag, text in self.texts.items() if tag != "style")


def picture(image):
    _, data = image["src"].split("base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
