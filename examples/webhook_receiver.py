"""An application that takes webhooks: checks the signature and the order, keeps each event once, asks again for what it lacks.

    LEDGER_SECRET=whsec_… python examples/webhook_receiver.py 9000 inbox.sqlite

For a consumer with `"ordering": "directory"`. Only the standard library. After 5 minutes an old signature is not accepted any more.
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

SCHEMA = "create table if not exists inbox (id text primary key, directory text, seq int, event text)"
TOLERANCE_S = 300


def signed(secret: str, headers: Message, body: bytes) -> bool:
    """Whether one of the signatures is ours, and the message is not an old one sent again by somebody else."""
    message, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "0")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    ours = base64.b64encode(hmac.new(key, f"{message}.{stamp}.".encode() + body, hashlib.sha256).digest()).decode()
    offered = [part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split()]
    fresh = stamp.isdigit() and abs(time.time() - int(stamp)) < TOLERANCE_S
    return fresh and any(hmac.compare_digest(ours, other) for other in offered)


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not signed(os.environ["LEDGER_SECRET"], self.headers, body):
            self.answer(401)
            return
        message = json.loads(body)
        if message["type"] == "ping":
            self.answer(204)
            return
        events = message["data"] if message["type"] == "batch" else [message["data"]]
        newest = self.newest(events[0]["directory"])
        before = self.headers.get("ledger-previous-seq")
        if before is not None and newest < int(before):  # deliveries are missing here: a restored backup, say
            self.answer(409, {"expected_previous_seq": newest})
            return
        with self.server.db:
            for event in events:  # one that is known already changes nothing
                row = (event["id"], event["directory"], event["seq"], json.dumps(event))
                self.server.db.execute("insert or ignore into inbox values (?, ?, ?, ?)", row)
        self.answer(204)

    def newest(self, directory: str) -> int:
        row = self.server.db.execute("select max(seq) from inbox where directory = ?", (directory,)).fetchone()
        return row[0] or 0

    def answer(self, status: int, document: dict[str, int] | None = None) -> None:
        body = json.dumps(document).encode() if document is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Deliveries name persons: they are not logged."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Hook)
    server.db = sqlite3.connect(sys.argv[2])
    server.db.execute(SCHEMA)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
