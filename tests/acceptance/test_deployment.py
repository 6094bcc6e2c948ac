"""The files of ops/ at work (docs/deployment.md): a service behind Debian's nginx and Caddy, the unit of systemd, the image."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import ROOT, Service, free_port, until
from tests.conftest import copied
from tests.debian import program

OPS = ROOT / "ops"
NAME = "ledger.example.com"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
MIB = 2**20


@dataclass
class Site:
    """A service behind a proxy, and a client that trusts its certificate."""

    service: Service
    base: str
    trusts: ssl.SSLContext
    plain_port: int

    def client(self, role: str) -> httpx.Client:
        token = self.service.first_run["tokens"][role]
        return httpx.Client(
            base_url=self.base, headers={"Authorization": f"Bearer {token}"}, verify=self.trusts, timeout=60, trust_env=False
        )


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with each of these changed; each must be there."""
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def certificate(place: Path) -> tuple[Path, Path]:
    chain, key = place / "fullchain.pem", place / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *subject, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True, timeout=60)
    return chain, key


def nginx(place: Path, upstream: int, port: int, plain: int) -> list[str]:
    """The command of nginx with ops/nginx.conf: only names, ports and places are changed."""
    chain, key = certificate(place)
    text = (OPS / "nginx.conf").read_text()
    text = re.sub(r" *listen \[::\].*\n", "", text)
    changes = {
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "/etc/ssl/ledger/fullchain.pem": str(chain),
        "/etc/ssl/ledger/key.pem": str(key),
        "/var/log/nginx": str(place),
        "/run/nginx.pid": str(place / "pid"),
        f"https://{NAME}": f"https://localhost:{port}",
        NAME: "localhost",
    }
    (place / "nginx.conf").write_text(replaced(text, changes))
    return [program("nginx", "nginx-light"), "-c", str(place / "nginx.conf"), "-p", str(place), "-g", "daemon off;"]


def caddy(place: Path, upstream: int, port: int, plain: int) -> list[str]:
    """The command of Caddy with ops/Caddyfile: only names, ports and the certificate are changed."""
    chain, key = certificate(place)
    changes = {
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "\tservers {": f"\tadmin off\n\thttp_port {plain}\n\tservers {{",
        "grace_period 10s": "grace_period 1s",
        f"{NAME} {{": f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {chain} {key}",
    }
    (place / "Caddyfile").write_text(replaced((OPS / "Caddyfile").read_text(), changes))
    return [program("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(place / "Caddyfile")]


@contextmanager
def running(command: list[str], place: Path) -> Iterator[None]:
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(place)})
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, first_started: Path) -> Iterator[Site]:
    made: Callable[[Path, int, int, int], list[str]] = request.param
    place = tmp_path_factory.mktemp("site")
    place.chmod(0o755)
    port, plain = free_port(), free_port()
    base = f"https://localhost:{port}"
    service = Service(copied(first_started, place / "ledger"), LEDGER_PUBLIC_URL=base)
    upstream = free_port()
    command = made(place, upstream, port, plain)  # before the service, because it may skip
    service.port = upstream
    service.start()
    try:
        with running(command, place):
            trusts = ssl.create_default_context(cafile=str(place / "fullchain.pem"))
            until(lambda: answers(base, trusts))
            yield Site(service, base, trusts, plain)
    finally:
        service.stop()


def answers(base: str, trusts: ssl.SSLContext) -> bool:
    try:
        return httpx.get(f"{base}/readyz", verify=trusts, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def user(name: str = "") -> dict[str, Any]:
    return {"schemas": [USER], "userName": name or f"{uuid4()}@example.com", "active": True}


def test_an_idp_writes_through_the_proxy_and_gets_addresses_of_the_proxy(site: Site) -> None:
    with site.client("scim") as idp:
        made = idp.post("/scim/acme/v2/Users", json=user())
        assert made.status_code == 201
        assert made.headers["location"] == made.json()["meta"]["location"]
        assert made.headers["location"].startswith(f"{site.base}/scim/acme/v2/Users/")
        assert made.headers["strict-transport-security"] == "max-age=31536000"
        assert idp.get(made.headers["location"]).json()["id"] == made.json()["id"]
        assert idp.get("/metrics").status_code == 404


def test_the_largest_bulk_and_the_largest_body_pass_and_a_larger_one_does_not(site: Site) -> None:
    operations = [
        {
            "method": "POST",
            "path": "/Users",
            "bulkId": str(n),
            "data": user() | {"urn:example:hr:1.0:User": {"note": "x" * 60_000}},
        }
        for n in range(270)
    ]
    body = json.dumps({"schemas": [BULK], "Operations": operations})
    assert 15 * MIB < len(body) < 16 * MIB
    headers = {"Content-Type": "application/scim+json"}
    with site.client("scim") as idp:
        done = idp.post("/scim/acme/v2/Bulk", content=body, headers=headers)
        assert done.status_code == 200, done.text[:500]
        assert {operation["status"] for operation in done.json()["Operations"]} == {"201"}
        name = json.dumps({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "x" * 31 * MIB})
        passed = idp.post("/scim/acme/v2/Groups", content=name, headers=headers)
        assert passed.headers["content-type"].startswith("application/scim+json"), "the service answered"
        try:
            refused = idp.post("/scim/acme/v2/Groups", content=b"x" * 34 * MIB, headers=headers).status_code
        except httpx.TransportError:
            refused = 413  # the connection was closed while the body was sent
        assert refused in {413, 502}, "502: the service had refused it and closed the connection before the proxy did"


def test_an_event_of_the_stream_arrives_as_it_is_made(site: Site) -> None:
    with site.client("scim") as idp, site.client("consumer") as app:
        place = app.get("/v1/events", params={"from": "now", "limit": 1}).json()["list_metadata"]["after"]
        with app.stream("GET", "/v1/events/stream", params={"after": place}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            made = idp.post("/scim/acme/v2/Users", json=user()).json()
            event = next(json.loads(line.removeprefix("data: ")) for line in lines if line.startswith('data: {"object":"event"'))
        assert event["subject"]["id"] == made["id"]


def test_a_long_poll_waits_and_is_answered_at_once(site: Site) -> None:
    name = f"poll-{uuid4().hex[:8]}"
    with site.client("admin") as admin, site.client("consumer") as app, site.client("scim") as idp:
        admin.put(f"/v1/consumers/{name}", json={"directories": ["acme"], "start": "now"})
        empty = app.get(f"/v1/consumers/{name}/events", params={"wait": 1})
        assert (empty.status_code, empty.json()["data"]) == (200, [])
        found: list[Any] = []
        waiting = threading.Thread(
            target=lambda: found.append(app.get(f"/v1/consumers/{name}/events", params={"wait": 30}).json()["data"])
        )
        waiting.start()
        made = idp.post("/scim/acme/v2/Users", json=user()).json()
        waiting.join(20)
        assert [event["subject"]["id"] for event in found[0]] == [made["id"]]


def test_without_tls_a_client_is_sent_to_the_address_with_it(site: Site) -> None:
    answer = httpx.get(f"http://localhost:{site.plain_port}/readyz", trust_env=False)
    assert answer.status_code in {301, 308}
    assert answer.headers["location"].startswith("https://localhost")


def test_nginx_has_no_paths_in_its_log() -> None:
    text = (OPS / "nginx.conf").read_text()
    (form,) = re.findall(r"log_format (\w+)", text)
    assert f"access_log /var/log/nginx/ledger.log {form};" in text
    for variable in ("$request ", "$request_uri'", "$uri", "$args", "$http_referer"):
        assert variable not in re.findall(r"log_format [^;]+;", text)[0]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed (Debian's package systemd)")
    unit = tmp_path / "scim-ledger.service"
    unit.write_text((OPS / "scim-ledger.service").read_text().replace("/opt/scim-ledger/bin/scim-ledger serve", "/bin/true"))
    done = subprocess.run([verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (OPS / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line]  # pyright: ignore[reportReturnType]


def test_the_image_is_made_for_a_user_who_is_not_root() -> None:
    steps = instructions()
    words = {
        "ARG",
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    assert {word for word, _ in steps} == words
    last = steps[[word for word, _ in steps].index("FROM", 2) :]
    assert [rest for word, rest in last if word == "USER"] == ["10001"]
    assert json.loads(dict(last)["ENTRYPOINT"]) == ["/opt/scim-ledger/bin/scim-ledger"]
    assert [word for word, _ in last if word == "COPY"] == ["COPY"], "only what was built, no sources"


@pytest.mark.long
def test_the_steps_of_the_image_make_a_service_that_runs_without_the_sources(tmp_path: Path) -> None:
    """Run in a plain folder, because no registry of images is reached from here: with this Python, and without a user of its own. Compiling is
    left out, which takes long and changes nothing.
    """
    source, made = tmp_path / "src", tmp_path / "opt"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, source / name)
    places = {
        "/tmp/uv/bin/uv": f"{sys.executable} -m uv",
        "/tmp/requirements.txt": str(tmp_path / "requirements.txt"),
        "/opt/scim-ledger": str(made),
    }
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("LEDGER_", "UV_", "VIRTUAL_ENV", "PYTHON"))
    }
    ran = 0
    for word, rest in instructions():
        if word == "RUN" and not re.search("useradd|pip install --no-cache-dir uv|compileall", rest):
            step = re.sub(r"(?<= )/src\b", str(source), rest).replace(" --no-cache ", " ")
            for before, after in places.items():
                step = step.replace(before, after)
            done = subprocess.run(["sh", "-ec", step], cwd=source, env=environment, capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, (step, done.stderr[-2000:])
            ran += 1
    assert ran == 4
    shutil.rmtree(source)
    (env,) = [rest for word, rest in instructions() if word == "ENV"]
    settings = dict(part.split("=", 1) for part in env.split()) | {
        "LEDGER_DATA_DIR": str(tmp_path / "data"),
        "LEDGER_HOST": "127.0.0.1",
        "LEDGER_PORT": "0",
    }
    command, quiet = [made / "bin" / "scim-ledger", "serve"], subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment | settings, stdout=subprocess.PIPE, stderr=quiet, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if "health" in line)
            assert httpx.get(said.split()[-1], trust_env=False).json()["status"] == "ready"
        finally:
            process.terminate()
            assert process.wait(30) == 0
