"""A small server that speaks the documented interface of Vault's transit engine, because no Vault can be installed here.

https://developer.hashicorp.com/vault/api-docs/secret/transit: keys, encrypt, decrypt, rotate, config, trim.
"""

import base64
import json
import secrets
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.of-the-test"


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Transit:
    """Keys by name: their versions, and from which on they may decrypt, encrypt, and exist."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}

    def make(self, name: str) -> None:
        self.keys[name] = {"versions": {1: secrets.token_bytes(32)}, "decrypt": 1, "encrypt": 0, "available": 0}

    def answer(self, method: str, path: list[str], body: dict[str, Any]) -> dict[str, Any]:
        match method, path:
            case "GET", ["keys", name]:
                return self._shown(self._key(name))
            case "POST" | "PUT", ["keys", name, "rotate"]:
                versions = self._key(name)["versions"]
                versions[max(versions) + 1] = secrets.token_bytes(32)
            case "POST" | "PUT", ["keys", name, "config"]:
                key = self._key(name)
                key["decrypt"] = body.get("min_decryption_version", key["decrypt"])
                key["encrypt"] = body.get("min_encryption_version", key["encrypt"])
            case "POST" | "PUT", ["keys", name, "trim"]:
                self._trim(self._key(name), body["min_available_version"])
            case "POST" | "PUT", ["encrypt", name]:
                return self._encrypted(self._key(name), body)
            case "POST" | "PUT", ["decrypt", name]:
                return self._decrypted(self._key(name), body)
            case _:
                raise _RefusedError(404, "unsupported path")
        return {}

    def _key(self, name: str) -> dict[str, Any]:
        if name not in self.keys:
            raise _RefusedError(404, "no such key")
        return self.keys[name]

    def _shown(self, key: dict[str, Any]) -> dict[str, Any]:
        return {
            "latest_version": max(key["versions"]), "min_decryption_version": key["decrypt"], "min_encryption_version": key["encrypt"],
            "min_available_version": key["available"], "type": "aes256-gcm96",
        }  # fmt: skip

    def _trim(self, key: dict[str, Any], version: int) -> None:
        if not key["decrypt"] or not key["encrypt"] or version > min(key["decrypt"], key["encrypt"]):
            raise _RefusedError(
                400, "min_available_version cannot be larger than min_decryption_version or min_encryption_version"
            )
        key["available"] = version
        key["versions"] = {number: secret for number, secret in key["versions"].items() if number >= version}

    def _encrypted(self, key: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        version = body.get("key_version") or max(key["versions"])
        if version < key["encrypt"] or version not in key["versions"]:
            raise _RefusedError(400, "requested version for encryption is less than the minimum encryption key version")
        nonce, place = secrets.token_bytes(12), base64.b64decode(body.get("associated_data", ""))
        sealed = nonce + AESGCM(key["versions"][version]).encrypt(nonce, base64.b64decode(body["plaintext"]), place)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}", "key_version": version}

    def _decrypted(self, key: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        _, version, text = body["ciphertext"].split(":")
        number = int(version.removeprefix("v"))
        if number < key["decrypt"] or number not in key["versions"]:
            raise _RefusedError(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            sealed, place = base64.b64decode(text, validate=True), base64.b64decode(body.get("associated_data", ""))
            opened = AESGCM(key["versions"][number]).decrypt(sealed[:12], sealed[12:], place)
        except (InvalidTag, ValueError):
            raise _RefusedError(400, "invalid ciphertext: unable to decrypt") from None
        return {"plaintext": base64.b64encode(opened).decode()}


@contextmanager
def vault() -> Generator[tuple[str, Transit]]:
    """A running server: its address, and its transit engine, mounted at `transit`."""
    transit = Transit()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            try:
                if self.headers.get("X-Vault-Token") != TOKEN:
                    raise _RefusedError(403, "permission denied")
                prefix, _, path = self.path.removeprefix("/v1/").partition("/")
                if prefix != "transit":
                    raise _RefusedError(404, "no handler for route")
                status, said = 200, {"data": transit.answer(self.command, path.split("/"), body)}
            except _RefusedError as refused:
                status, said = refused.status, {"errors": [str(refused)]}
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 - names of the library

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", transit
        finally:
            server.shutdown()
            thread.join()
