"""Where the Studio can be cloned from: the one place that says it.

Notebooks take their "Open in Colab" badge and the address that their first cell clones from here
(`python notebooks/run.py` writes both). While it is empty there is no badge, and the first cell
says what to do instead.
"""

#: Such as "https://github.com/owner/name".
REPOSITORY = ""


def colab(notebook: str, repository: str = REPOSITORY) -> str:
    """The address that opens a notebook, by its file's name, in Colab; '' where there is none.

    >>> colab("00-sources.ipynb", "https://github.com/owner/name")
    'https://colab.research.google.com/github/owner/name/blob/HEAD/notebooks/00-sources.ipynb'
    >>> colab("00-sources.ipynb", "")
    ''
    """
    host = "https://github.com/"
    if not repository.startswith(host):
        return ""
    name = repository.removeprefix(host).removesuffix(".git").strip("/")
    return f"https://colab.research.google.com/github/{name}/blob/HEAD/notebooks/{notebook}"
