"""The crews that a test has made."""


def noted(monkeypatch, kind: type) -> list:
    """Every crew of a kind that is made from now on, in order."""
    made = []
    begin = kind.__init__

    def remembered(self, *arguments):
        begin(self, *arguments)
        made.append(self)

    monkeypatch.setattr(kind, "__init__", remembered)
    return made
