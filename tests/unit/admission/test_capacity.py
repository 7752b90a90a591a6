from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pytest_httpserver import HTTPServer

from nat_dynamo_plugin.admission import capacity
from nat_dynamo_plugin.admission.capacity import CapacityProbe, count_workers, worker_tokens

METRICS = """\
# HELP dynamo_frontend_model_total_kv_blocks Total KV cache blocks available for a worker serving the model
# TYPE dynamo_frontend_model_total_kv_blocks gauge
dynamo_frontend_model_total_kv_blocks{model="other"} 9
dynamo_frontend_model_total_kv_blocks{model="m"} 1664
dynamo_frontend_model_kv_cache_block_size{a="b",model="m"} 16 1700000000
dynamo_frontend_model_kv_cache_block_size{model="other"} 64
dynamo_frontend_inflight_requests{model="m"} 3
"""


def instance(component: str, endpoint: str = "generate") -> dict[str, str]:
    return {"namespace": "dynamo", "component": component, "endpoint": endpoint}


HEALTH = {"instances": [instance("backend"), instance("backend"), instance("backend", "kv_query"), instance("prefill")]}


def test_tokens_of_a_worker() -> None:
    assert worker_tokens(METRICS, "m") == 1664 * 16
    assert worker_tokens(METRICS, "other") == 9 * 64
    assert worker_tokens(METRICS, "unknown") is None
    assert worker_tokens("", "m") is None
    assert worker_tokens('dynamo_frontend_model_total_kv_blocks{model="m"}', "m") is None


@pytest.mark.parametrize(
    ("health", "count"), [(HEALTH, 2), ({}, 0), ({"instances": None}, 0), ([], 0), ({"instances": [3]}, 0), (None, 0)]
)
def test_workers_are_the_instances_that_generate(health: object, count: int) -> None:
    assert count_workers(health) == count


class Frontend:
    """A frontend's pages, and a probe that asks for them; `url` is that of a call."""

    def __init__(self, server: HTTPServer, root: str = "") -> None:
        self.server = server
        self.root = root
        self.told: list[tuple[int, int]] = []
        self.probe = CapacityProbe("m", lambda tokens, workers: self.told.append((tokens, workers)))
        self.url = server.url_for(f"{root}/v1/chat/completions")

    def serve(self, page: str, **answer: Any) -> None:
        respond = self.server.expect_request(f"{self.root}{page}")
        respond.respond_with_json(answer["json"]) if "json" in answer else respond.respond_with_data(**answer)

    def call(self) -> None:
        """A call, and the end of what it begins."""
        self.probe.called(self.url)
        for thread in threading.enumerate():
            if thread.name == "dynamo-capacity":
                thread.join(10)

    def pages(self) -> list[str]:
        return [request.path for request, _ in self.server.log]


@pytest.mark.parametrize("root", ["", "/behind/a/gateway"])
def test_asks_the_frontend_that_serves_the_call(httpserver: HTTPServer, root: str) -> None:
    frontend = Frontend(httpserver, root)
    frontend.serve("/metrics", response_data=METRICS)
    frontend.serve("/health", json=HEALTH)
    frontend.call()
    assert frontend.told == [(2 * 1664 * 16, 2)]
    frontend.call()
    assert len(frontend.told) == 1, "it was asked a moment ago"


def test_asks_again_how_many_workers_there_are(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "EVERY_S", 0.0)
    frontend = Frontend(httpserver)
    frontend.serve("/metrics", response_data=METRICS)
    frontend.serve("/health", json=HEALTH)
    frontend.call()
    frontend.call()
    assert frontend.told == [(2 * 1664 * 16, 2)] * 2
    assert frontend.pages() == ["/metrics", "/health", "/health"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda frontend: None,
        lambda frontend: frontend.serve("/metrics", response_data="nothing of ours"),
        lambda frontend: frontend.serve("/metrics", status=401),
        lambda frontend: (
            frontend.serve("/metrics", response_data=METRICS),
            frontend.serve("/health", response_data="<html>"),
        ),
        lambda frontend: (
            frontend.serve("/metrics", response_data=METRICS),
            frontend.serve("/health", json={"instances": []}),
        ),
    ],
    ids=["no pages", "other metrics", "refused", "other health", "no workers"],
)
def test_a_server_that_does_not_say_is_asked_ever_less_often(
    httpserver: HTTPServer, break_it: Callable[[Frontend], None], caplog: pytest.LogCaptureFixture
) -> None:
    frontend = Frontend(httpserver)
    break_it(frontend)
    with caplog.at_level("INFO", logger="nat_dynamo_plugin.admission.capacity"):
        for misses in range(1, 4):
            frontend.probe._next = 0.0
            frontend.call()
            assert frontend.probe._misses == misses
    assert frontend.told == []
    (message,) = [
        record.getMessage() for record in caplog.records if record.name == "nat_dynamo_plugin.admission.capacity"
    ]
    assert "holds nothing back without knowing" in message


def test_a_server_that_is_not_there_is_no_error() -> None:
    told: list[int] = []
    probe = CapacityProbe("m", lambda tokens, workers: told.append(tokens))
    probe._ask("http://127.0.0.1:9/v1/responses")
    assert told == []


def test_a_server_that_never_says_is_asked_for_ever() -> None:
    probe = CapacityProbe("m", lambda tokens, workers: None)
    probe._misses = 5000
    probe._asking = True
    probe._ask("http://127.0.0.1:9/v1/responses")
    assert not probe._asking


@pytest.mark.parametrize("url", ["", "nothing", "http://[", "http://host:port/v1/x", "/v1/chat/completions"])
def test_a_url_that_is_none_is_no_error(url: str) -> None:
    probe = CapacityProbe("m", lambda tokens, workers: None)
    probe._asking = True
    probe._ask(url)
    assert not probe._asking


def test_no_more_threads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    probe = CapacityProbe("m", lambda tokens, workers: None)
    probe.called("http://127.0.0.1:9/v1/completions")
    assert not probe._asking


def test_a_password_in_the_url_is_used_and_not_logged(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    frontend = Frontend(httpserver)
    frontend.url = frontend.url.replace("http://", "http://user:hunter%402@")
    with caplog.at_level("DEBUG"):
        frontend.call()
    request, _ = httpserver.log[0]
    assert request.authorization is not None
    assert (request.authorization.username, request.authorization.password) == ("user", "hunter@2")
    assert httpserver.url_for("").rstrip("/") in caplog.text
    assert "hunter" not in caplog.text


class TestGoesTheWayThatCallsGo:
    def test_through_the_environments_proxy(self, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", httpserver.url_for(""))
        monkeypatch.setenv("http_proxy", httpserver.url_for(""))
        frontend = Frontend(httpserver)
        frontend.url = "http://frontend.invalid/v1/completions"
        frontend.call()
        (request, _), *_ = httpserver.log
        assert request.host == "frontend.invalid"

    def test_with_the_environments_certificates(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        certificate, context = self_signed(tmp_path)
        with HTTPServer(host="localhost", ssl_context=context) as server:
            for environment, told in (({}, []), ({"SSL_CERT_FILE": str(certificate)}, [(2 * 1664 * 16, 2)])):
                for name, value in environment.items():
                    monkeypatch.setenv(name, value)
                frontend = Frontend(server)
                frontend.serve("/metrics", response_data=METRICS)
                frontend.serve("/health", json=HEALTH)
                frontend.call()
                assert frontend.told == told


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody knows, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate = folder / "certificate.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context


def test_the_child_of_a_fork_asks_for_itself(in_child: Callable[[Callable[[], bool]], bool]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        probe = CapacityProbe("m", lambda tokens, workers: None)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/completions"
        probe.called(url)
        silent.accept()[0].close()  # the parent's is under way or just over

        def check() -> bool:
            probe._next = 0.0
            probe.called(url)
            silent.settimeout(30)
            silent.accept()[0].close()
            return True

        probe._asking = True
        assert in_child(check)
