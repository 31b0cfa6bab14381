"""The page -> an HTTP server that asks no other machine for anything."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from starlette.responses import JSONResponse

from fcn_keras.demo.samples import Sample
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.serving import http

MAX_UPLOAD = "256mb"
STYLE = Path(__file__).with_name("style.css")


def serve(
    listener: socket.socket,
    segmenter: Segmenter,
    samples: list[Sample],
    folder: Path,
    title: str,
    ready: str,
) -> None:
    """Shows the page until SIGTERM, SIGHUP or SIGINT, and ends what runs then.

    Args:
        listener: A bound socket.
        segmenter: The model.
        samples: Pictures to try.
        folder: For uploads and answers.
        title: The model's name.
        ready: A line to print when the page can be opened.

    Raises:
        UserError: If another server has begun to listen at the address meanwhile.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # They are read when Gradio is imported.
    import gradio as gr
    from fastapi import FastAPI
    from python_multipart.exceptions import FormParserError

    from fcn_keras.demo.page import build_page

    page = build_page(segmenter, samples, folder, title)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        theme=_theme(gr),
        css_paths=STYLE,
        footer_links=[],
        run_history=False,
        # An event that does not exist, and an upload whose parts have no good boundary.
        app_kwargs={"exception_handlers": dict.fromkeys((KeyError, FormParserError), _malformed)},
        max_file_size=MAX_UPLOAD,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )
    gradio_app = app.routes[-1].app

    def stopping():  # every open page holds a connection that would last for ever
        gradio_app.stop_event.set()

    http.run(app, listener, ready, stopping, timeout_graceful_shutdown=60)
    print("Stopped.", flush=True)


def _malformed(request, error) -> JSONResponse:
    return JSONResponse({"detail": "Malformed request."}, 400)


def _theme(gr):
    """Fonts that are on every machine: Gradio's own may come from Google."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_background_fill="*neutral_100", block_border_color="*neutral_300")
