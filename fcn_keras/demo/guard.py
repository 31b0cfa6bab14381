"""What a page's browser sends, checked: anyone may write such requests without the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

KEPT_SESSIONS = 100  # of users who come back to a slider; each answer has some 10 MB


class GuardedBlocks(gr.Blocks):
    """Gradio's page, whose events take files that were uploaded to it, and no others.

    Gradio checks this by itself only where it is launched, not where it is mounted
    (`processing_utils._check_allowed`), and it would fetch addresses for whoever asks.

    Args:
        folder: Where uploads are.
        **options: `gr.Blocks`'.
    """

    def __init__(self, folder: Path, **options):
        super().__init__(**options)
        self._folder = folder.resolve()
        self.state_session_capacity = KEPT_SESSIONS

    async def preprocess_data(self, block_fn, inputs, *arguments, **options):
        try:
            if not all(map(self._is_upload, _paths(inputs))):
                raise gr.Error("Not a file that was uploaded here.", print_exception=False)
            return await super().preprocess_data(block_fn, inputs, *arguments, **options)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:  # a page sends nothing that Gradio cannot read
            raise gr.Error("Malformed request.", print_exception=False) from error

    def _is_upload(self, path) -> bool:
        try:
            resolved = Path(path).resolve(strict=True)
        except (OSError, TypeError, ValueError):
            return False
        return resolved.is_relative_to(self._folder) and resolved.is_file()


def _paths(value) -> Iterator:
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)
