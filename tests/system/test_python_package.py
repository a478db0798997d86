"""`pip install schemas/python`, as README says it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from processes import ROOT

SAY = """
import importlib.metadata, json, troupe_bus
package = importlib.metadata.distribution("troupe-bus")
print(json.dumps({"file": troupe_bus.__file__, "version": package.version, "requires": package.requires}))
from troupe_bus import Client
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new environment with the package in it. Nothing is fetched: what builds it, and what it requires, are those of
    the tests."""
    folder = tmp_path_factory.mktemp("package")
    source = shutil.copytree(ROOT / "schemas/python", folder / "source")  # a build leaves files beside it
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, capture_output=True)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (site / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [folder / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-build-isolation", source], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_installed_package_is_imported_and_tells_what_it_requires(installed):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [installed / "venv/bin/python", "-c", SAY], cwd=installed, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["file"].startswith(str(installed / "venv"))
    assert told["version"] == "0.1.0" and told["requires"] == ["pyzmq>=23"]


def test_every_module_of_the_source_is_in_the_package(installed):
    (package,) = (installed / "venv/lib").glob("python*/site-packages/troupe_bus")
    names = [sorted(p.name for p in folder.glob("*.py")) for folder in (package, ROOT / "schemas/python/troupe_bus")]
    assert names[0] == names[1] and names[0]
