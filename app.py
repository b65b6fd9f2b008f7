"""Opens the Studio: ``python app.py``, then http://127.0.0.1:7860. A Space starts here too.

Port and address are Gradio's own settings (``GRADIO_SERVER_PORT``, ``GRADIO_SERVER_NAME``), which a
Space sets for itself.
"""

from studio.errors import StudioError
from studio.ui.page import build, looks

demo = build()

if __name__ == "__main__":
    try:
        demo.launch(**looks())
    except StudioError as error:
        raise SystemExit(f"error: {error}") from None
    except ValueError:
        # Gradio gives its own server three seconds to answer it. On a busy machine the server is
        # merely late, and serves all the same.
        if not demo.is_running:
            raise
        demo.block_thread()
