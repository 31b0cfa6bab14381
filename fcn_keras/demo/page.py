"""The page: its parts, and what happens when they are used."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fcn_keras.data.split import LabelSet
from fcn_keras.demo.guard import GuardedBlocks
from fcn_keras.demo.prediction import Answer, segment
from fcn_keras.demo.samples import Sample
from fcn_keras.errors import UserError
from fcn_keras.files.painting import painted_ids
from fcn_keras.inference.segmenter import Segmenter

KEPT_SECONDS = 3600  # photographs, masks and overlays are deleted after that
WAITING = 64  # more users at a time are told that the queue is full
OPACITY = 50
PASS_INDEX = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { index: Number(button.dataset.index) });
});
"""


def build_page(
    segmenter: Segmenter, samples: Sequence[Sample], folder: Path, title: str
) -> gr.Blocks:
    """Builds the page.

    Args:
        segmenter: The model; it is asked by one user at a time.
        samples: Pictures to try.
        folder: Gets the files of answers; Gradio serves it (`GRADIO_TEMP_DIR`).
        title: The model's name.
    """
    with GuardedBlocks(
        folder,
        title=f"{title} · fcn_keras",
        analytics_enabled=False,
        delete_cache=(600, KEPT_SECONDS),
    ) as page:
        gr.HTML(_heading(title, segmenter.labels), elem_id="heading")
        answer = gr.State(time_to_live=KEPT_SECONDS)
        with gr.Row():
            with gr.Column(scale=3, min_width=250):
                photograph = gr.File(show_label=False, height=130, elem_id="photograph")
                chosen = gr.HTML(_sample_buttons(samples), js_on_load=PASS_INDEX, elem_id="samples")
            with gr.Column(scale=8, min_width=320):
                message = gr.HTML("<p>Drop a photograph, or pick a sample.</p>", elem_id="message")
                picture = gr.Image(
                    show_label=False,
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="picture",
                )
            with gr.Column(scale=3, min_width=250, elem_id="controls"):
                opacity = gr.Slider(
                    0, 100, OPACITY, step=1, label="Opacity, %", elem_id="opacity", buttons=[]
                )
                classes = gr.CheckboxGroup(label="Classes and shares", elem_id="classes")
                swatches = gr.HTML(elem_id="swatches")
                download = gr.DownloadButton(
                    "Download the mask", interactive=False, size="md", elem_id="download"
                )
        events = _Events(segmenter, samples, folder)
        results = [message, picture, classes, swatches, download, answer, photograph]
        network: dict[str, Any] = {
            "outputs": results,
            "concurrency_id": "network",
            "concurrency_limit": 1,
            "trigger_mode": "always_last",
            "show_progress_on": picture,
            "api_visibility": "private",
        }
        photograph.upload(events.predict_file, [photograph, opacity], **network)
        chosen.click(events.predict_sample, opacity, **network)
        gr.on(
            [opacity.input, classes.input],
            events.draw,
            [answer, opacity, classes],
            picture,
            concurrency_limit=2,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
    return page.queue(max_size=WAITING)


class _Events:
    def __init__(self, segmenter: Segmenter, samples: Sequence[Sample], folder: Path):
        self._segmenter, self._samples, self._folder = segmenter, samples, folder

    def predict_file(self, photograph: str | None, opacity: float, progress=gr.Progress()):  # noqa: B008
        if photograph is None:
            raise gr.Error("No file.", print_exception=False)
        return self._predict(Path(photograph), opacity, progress)

    def predict_sample(self, opacity: float, event: gr.EventData, progress=gr.Progress()):  # noqa: B008
        index: Any = event._data.get("index") if isinstance(event._data, dict) else None
        if index not in range(len(self._samples)):
            raise gr.Error("No such sample.", print_exception=False)
        return self._predict(self._samples[int(index)].path, opacity, progress)

    def draw(self, answer: Answer | None, opacity: float, classes: list[int]):
        if answer is None:
            return gr.skip()
        return str(answer.draw(self._segmenter.labels, opacity / 100, classes))

    def _predict(self, photograph: Path, opacity: float, progress: gr.Progress):
        # One prediction runs at a time, so that this is its own.
        self._segmenter.progress = lambda pieces, total: progress.tqdm(
            pieces, total=total, unit="tiles"
        )
        try:
            answer = segment(self._segmenter, photograph, self._folder)
        except UserError as error:
            problem = f"<p role='alert' class='problem'>{html.escape(str(error))}</p>"
            return problem, *[gr.skip()] * 5, None
        labels = self._segmenter.labels
        shown = [i for i in answer.shares if i in painted_ids(labels.names)]
        return (
            _summary(answer),
            str(answer.draw(labels, opacity / 100, shown)),
            gr.CheckboxGroup(choices=_choices(answer, labels), value=shown),
            _swatches(answer, labels),
            gr.DownloadButton(value=answer.mask_file, interactive=True),
            answer,
            None,
        )


def _heading(title: str, labels: LabelSet) -> str:
    return (
        "<h1>Every pixel has a class</h1>"
        f"<p><b>{html.escape(title)}</b> tells {len(labels)} classes apart.</p>"
    )


def _sample_buttons(samples: Sequence[Sample]) -> str:
    buttons = []
    for index, sample in enumerate(samples):
        data = base64.b64encode(sample.thumbnail).decode()
        name = html.escape(f"Sample {sample.path.stem}", quote=True)
        buttons.append(
            f'<button type="button" data-index="{index}" title="{name}">'
            f'<img src="data:image/jpeg;base64,{data}" alt="{name}"></button>'
        )
    return "".join(buttons)


def _summary(answer: Answer) -> str:
    width, height = answer.size
    shown_height, shown_width = answer.mask.shape
    text = f"{answer.name}: {width} × {height} pixels in {answer.seconds:.2f} s"
    if (width, height) != (shown_width, shown_height):
        text += f", shown at {shown_width} × {shown_height}"
    return f"<p role='status'>{html.escape(text)}</p>"


def _choices(answer: Answer, labels: LabelSet) -> list[tuple[str, int]]:
    return [
        (
            f"{labels.names[i]} {100 * share:.1f} %"
            if share >= 0.0005
            else f"{labels.names[i]} < 0.1 %",
            i,
        )
        for i, share in answer.shares.items()
    ]


def _swatches(answer: Answer, labels: LabelSet) -> str:
    """A style sheet that gives each toggle its class's colour, and a bar as long as its share."""
    rules = []
    for number, (class_id, share) in enumerate(answer.shares.items(), 1):
        color = "rgb({}, {}, {})".format(*labels.palette[class_id])
        rules.append(
            f"#classes label:nth-of-type({number}) "
            f"{{ --swatch: {color}; --share: {100 * share:.2f}%; }}"
        )
    return f"<style>{' '.join(rules)}</style>"
