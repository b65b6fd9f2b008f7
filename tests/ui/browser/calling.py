"""Calls the page's handlers as the HTTP endpoints that they are, without a browser."""

import itertools
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

_SESSIONS = itertools.count()


class Caller:
    """Somebody with a token of their own, who may send whatever they like."""

    def __init__(self, address: str, token: str):
        self.address, self.token = address, token
        self.session = f"caller{next(_SESSIONS)}"
        with urllib.request.urlopen(f"{address}/config", timeout=30) as response:
            config = json.load(response)
        self.components = {c["id"]: c for c in config["components"]}
        self.handlers = [d for d in config["dependencies"] if d["backend_fn"]]

    def named(self, name: str) -> dict:
        """The handler that is a function of this name."""
        named = [h for h in self.handlers if re.sub(r"_\d+$", "", h["api_name"] or "") == name]
        return named[-1]  # the page's own are bound after those of its tabs

    def call(self, handler: dict, inputs: list[Any], event: Any = None, query: str = "") -> str:
        """All that the server says to a call, as text."""
        body = {
            "fn_index": handler["id"],
            "data": inputs,
            "event_data": event,
            "session_hash": self.session,
            "trigger_id": None,
        }
        request = urllib.request.Request(
            f"{self.address}/gradio_api/queue/join{query}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Accept-Language": "en"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            event = json.load(response)["event_id"]
        return "".join(self._said(event))

    def _said(self, event: str) -> Iterator[str]:
        address = f"{self.address}/gradio_api/queue/data?session_hash={self.session}"
        with urllib.request.urlopen(address, timeout=120) as stream:
            for line in stream:
                said = line.decode()
                if event not in said and '"unexpected_error"' not in said:
                    continue  # of an earlier call
                yield said
                if '"process_completed"' in said or '"unexpected_error"' in said:
                    return

    def values(self, handler: dict, run: str, other: Any, file: str) -> list[Any]:
        """A value per input: oneself, a run, a file where a file is wanted, else ``other``."""
        found = []
        for number in handler["inputs"]:
            component = self.components[number]
            kind, props = component["type"], component["props"]
            name = props.get("elem_id")
            if kind == "browserstate":
                found.append({"token": self.token, "language": "en"})
            elif kind == "state":
                found.append(None)
            elif name == "run":
                found.append(run)
            elif kind in ("file", "uploadbutton", "image"):
                found.append({"path": file, "meta": {"_type": "gradio.FileData"}})
            elif kind in ("number", "slider"):
                found.append(1)
            elif kind == "checkbox":
                found.append(True)
            elif kind in ("dropdown", "radio") and not props.get("allow_custom_value"):
                choices = [value for _, value in props.get("choices") or []]
                fit = other if other in choices else next(iter(choices), None)
                found.append([fit] if props.get("multiselect") else fit)
            elif props.get("multiselect"):
                found.append([other])
            else:
                found.append(other)
        return found
