"""What a notebook's first cell calls: installs what is missing, and says what this machine is.

Knows the project's own lists of packages. Refuses to touch torch: it comes with the machine,
Colab's with its drivers, and another one takes minutes and may not fit. Needs nothing but Python
itself and `packaging`, which comes with Jupyter.
"""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

#: Never installed from here.
GIVEN = ("torch", "torchvision", "torchaudio")


def ready(root: str | Path) -> None:
    """Make the checkout at ``root`` importable and the folder that paths are relative to.

    Raises:
        RuntimeError: torch is missing, or a package could not be installed.
    """
    root = Path(root).resolve()
    absent = missing(root)
    given = [name for name in absent if name.split("[")[0].split(">")[0] in GIVEN]
    if "torch" in {name.split(">")[0] for name in given} and not _version("torch"):
        raise RuntimeError(
            "There is no torch here, and this notebook does not install it; see pytorch.org for "
            "the one that fits this machine, and restart."
        )
    wanted = [name for name in absent if name not in given]
    if wanted:
        print("Installing", ", ".join(wanted), "…")
        command = [sys.executable, "-m", "pip", "install", "--quiet", *wanted]
        if subprocess.run(command).returncode:
            raise RuntimeError("pip could not install these; its own words are above.")
    os.chdir(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    print("Everything the Studio needs is here.")
    if given:
        print(f"It asks for {' and '.join(given)}; what is here is left as it is.")


def missing(root: Path) -> list[str]:
    """The requirements of the Studio and its notebooks that are not installed as they should be."""
    from packaging.requirements import Requirement

    listed = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in listed if line.strip() and not line.startswith("#")]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines += project["optional-dependencies"]["notebooks"]
    absent = []
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            absent.append(f"{requirement.name}{requirement.specifier}")
    return absent


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
