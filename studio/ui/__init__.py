"""The Studio's page in Gradio: calls the other rooms, holds no logic of its own."""

from studio.ui.page import build, looks

__all__ = ["build", "looks"]
