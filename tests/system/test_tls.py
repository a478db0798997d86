"""HTTPS, as the unmodified openai client and other programs see it."""

import signal
import socket
import ssl
import subprocess

import httpx
import openai
import processes
import pytest

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
HOST = "127.0.0.1"


def write_certificate(folder, name):
    """A self-signed certificate for 127.0.0.1: what a client must be given to trust."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{HOST}", "-days", "2"]
    command += ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder, "first")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    processes.require_files()
    server = processes.Server(folder)
    server.scheme = "https"
    flags = ["--model", processes.MODEL, "--port", 0, "--served-model-name", processes.MODEL_NAME]
    flags += ["--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem"]
    yield server.wait_ready(server.troupe("serve", *flags))
    server.stop()


def client(server, **options):
    return openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=120,
        http_client=httpx.Client(trust_env=False, **options),
    )


def test_the_openai_client_speaks_https(server, folder):
    with client(server, verify=ssl.create_default_context(cafile=folder / "cert.pem")) as trusting:
        options = {"model": processes.MODEL_NAME, "messages": CAPITAL, "max_tokens": 32, "temperature": 0}
        whole = trusting.chat.completions.create(**options).choices[0].message.content
        stream = trusting.chat.completions.create(**options, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "Paris" in whole
    assert "".join(pieces) == whole and len(pieces) > 4


def test_a_client_that_does_not_know_the_certificate_says_nothing(server):
    with client(server) as stranger, pytest.raises(openai.APIConnectionError) as refused:
        stranger.models.list()
    assert "CERTIFICATE_VERIFY_FAILED" in repr(refused.value.__cause__)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_versions_of_tls_before_1_2_are_refused(server):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")  # else it is OpenSSL on this side that refuses
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection((HOST, port), 30) as raw, pytest.raises(ssl.SSLError) as refused:
        old.wrap_socket(raw)
    assert "PROTOCOL_VERSION" in str(refused.value)


def test_a_renewed_certificate_is_taken_at_sighup(server, folder):
    """Last here: it changes what the server shows."""
    port = int(server.url.rsplit(":", 1)[1])
    before = ssl.get_server_certificate((HOST, port))
    assert before.split() == (folder / "cert.pem").read_text().split()
    write_certificate(folder, "second")
    server.processes["serve"].popen.send_signal(signal.SIGHUP)
    processes.wait_until(
        lambda: ssl.get_server_certificate((HOST, port)).split() == (folder / "cert.pem").read_text().split(),
        "the new certificate is shown",
        30,
    )
