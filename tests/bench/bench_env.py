"""The Python environment of benches that draw: .venv-bench, with matplotlib."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / ".venv-bench"
MATPLOTLIB = "matplotlib==3.10.7"


def enter_with_matplotlib():
    """Runs the script again in that environment, which is made when it is not there; then returns."""
    if sys.prefix != str(FOLDER):
        if not (FOLDER / "bin/python").exists():
            subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        os.execv(FOLDER / "bin/python", [FOLDER / "bin/python", *sys.argv])
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", MATPLOTLIB], check=True)
