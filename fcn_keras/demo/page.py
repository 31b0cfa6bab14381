"""The page: its parts, and what happens when they are used."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from fcn_keras.datasets.base import LabelSet
from fcn_keras.demo.answer import Answer, segment
from fcn_keras.demo.samples import Sample
from fcn_keras.errors import UserError
from fcn_keras.prediction import Segmenter

KEPT_SECONDS = 3600  # photographs, masks and overlays are deleted after that
WAITING = 64  # more users at a time are told that the queue is full
OPACITY = 50
HIDDEN_AT_FIRST = "background"  # mostly black: painted, it would darken the photograph


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
    with gr.Blocks(
        title=f"{title} · fcn_keras", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)
    ) as page:
        gr.HTML(
            "<h1>Segmentation of photographs</h1>"
            f"<p>The network <b>{html.escape(title)}</b> gives every pixel one of "
            f"{len(segmenter.labels)} classes.</p>",
            elem_id="head",
        )
        answer = gr.State(time_to_live=KEPT_SECONDS)
        with gr.Row():
            with gr.Column(scale=3, min_width=250):
                photograph = gr.File(
                    label="Photograph", height=150, elem_id="photograph", file_count="single"
                )
                chosen = _sample_pictures(samples)
            with gr.Column(scale=8, min_width=320):
                message = gr.HTML(elem_id="message")
                picture = gr.Image(
                    label="Photograph with its classes",
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="picture",
                    placeholder="Drop a photograph, or pick a sample.",
                )
            with gr.Column(scale=3, min_width=250):
                opacity = gr.Slider(
                    0, 100, OPACITY, step=1, label="Opacity, %", elem_id="opacity", buttons=[]
                )
                classes = gr.CheckboxGroup(
                    label="Classes and their share of the area", elem_id="classes"
                )
                swatches = gr.HTML(elem_id="swatches")
                download = gr.DownloadButton(
                    "Download the mask", interactive=False, elem_id="download"
                )
        events = _Events(segmenter, samples, folder)
        results = [message, picture, classes, swatches, download, answer, photograph]
        network = {
            "outputs": results,
            "concurrency_id": "network",
            "concurrency_limit": 1,
            "trigger_mode": "always_last",
            "show_progress_on": picture,
            "api_visibility": "private",
        }
        photograph.upload(events.predict_file, [photograph, opacity], **network)
        chosen.click(events.predict_sample, [chosen, opacity], **network)
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

    def predict_file(self, photograph: str, opacity: float, progress=gr.Progress()):  # noqa: B008
        return self._predict(Path(photograph), opacity, progress)

    def predict_sample(self, index: int, opacity: float, progress=gr.Progress()):  # noqa: B008
        return self._predict(self._samples[index].path, opacity, progress)

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
        shown = [i for i in answer.shares if labels.names[i] != HIDDEN_AT_FIRST]
        return (
            _summary(answer),
            str(answer.draw(labels, opacity / 100, shown)),
            gr.CheckboxGroup(choices=_choices(answer, labels), value=shown),
            _swatches(answer, labels),
            gr.DownloadButton(value=answer.mask_file, interactive=True),
            answer,
            None,
        )


def _sample_pictures(samples: Sequence[Sample]) -> gr.Dataset:
    return gr.Dataset(
        label="Samples",
        components=[gr.Image(render=False)],
        samples=[[str(sample.thumbnail)] for sample in samples],
        samples_per_page=len(samples),
        type="index",
        elem_id="samples",
    )


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
