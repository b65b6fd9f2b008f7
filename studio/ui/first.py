"""What a browser runs before anything of Gradio's: a script at the very top of the page.

Gradio adds a page's own ``head`` only once it has begun, when it has already asked the browser for
its language. Knows HTML pages on their way out; refuses to know what the script says.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HeadFirst:
    """ASGI middleware that puts ``script`` right after the ``<head>`` of every HTML page."""

    def __init__(self, app: Callable[..., Awaitable[None]], script: str):
        self.app, self.script = app, script.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held: Message | None = None  # the start of an HTML page: its length is not known yet
        body = b""

        async def passed(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_html(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    page = body.replace(b"<head>", b"<head>" + self.script, 1)
                    headers = [h for h in held["headers"] if h[0].lower() != b"content-length"]
                    held["headers"] = [*headers, (b"content-length", str(len(page)).encode())]
                    await send(held)
                    await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, passed)


def _is_html(message: Message) -> bool:
    kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
    return any(kind.startswith(b"text/html") for kind in kinds)
