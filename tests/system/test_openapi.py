"""openapi.json, asked of a real server by schemathesis: what it allows is answered as it says, what it does not allow
is refused, and nothing is answered with a fault of the server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT

HERE = Path(__file__).resolve().parent
RUN_S = 300
ENCODERS = ROOT / "tests/data/models"


def run_schemathesis(server, folder, *flags):
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run"]
    command += [f"{server.url}/openapi.json", "--seed", "1", "--generation-database", "none", "--no-color"]
    command += ["--continue-on-failure", *flags]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE), "no_proxy": "*"}
    environment["PYTHONHASHSEED"] = "1"
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=RUN_S, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr
    return done.stdout


COVERAGE = ["--phases", "examples,coverage"]
FUZZING = ["--phases", "fuzzing", "--exclude-checks", "positive_data_acceptance"]  # numbers of a hundred digits


def test_the_server_does_what_its_openapi_document_says(start_serve, tmp_path):
    server = start_serve("--pooling", "mean", "--max-model-len", "128")
    said = run_schemathesis(server, tmp_path, *COVERAGE, "--exclude-path", "/v1/rerank")
    assert " 14/15" in said  # operations that were tested
    run_schemathesis(server, tmp_path, *FUZZING, "--max-examples", "5")
    server.wait_idle()


@pytest.mark.parametrize("model, path", [("bert_score", "/v1/rerank"), ("bert", "/v1/embeddings")])
def test_encoders_do_too(start_serve, tmp_path, model, path):
    server = start_serve(model=ENCODERS / model)
    run_schemathesis(server, tmp_path, *COVERAGE, "--include-path", path)


def test_the_document_is_the_file(serve):
    assert serve.get("/openapi.json").json() == json.loads((ROOT / "services/gateway/openapi.json").read_text())
