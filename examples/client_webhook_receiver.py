"""The same application as webhook_receiver.py, with the client: checks the signature and the order, keeps each event once.

    LEDGER_SECRET=whsec_… python examples/client_webhook_receiver.py 9000 inbox.sqlite

For a consumer with `"ordering": "directory"`. While the secret is rotated, LEDGER_SECRET may hold the old and the new one, with a space in between.
Needs `pip install ./clients/python`.
"""

import json
import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from scim_ledger_client import SignatureError, Webhook

SCHEMA = "create table if not exists inbox (id text primary key, directory text, seq int, event text)"


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            delivery = self.server.webhook.receive(self.headers, body)
        except SignatureError:
            self.answer(401)
            return
        if delivery.events:
            newest = self.newest(delivery.events[0]["directory"])
            if (
                delivery.previous_seq is not None and newest < delivery.previous_seq
            ):  # deliveries are missing here: a restored backup, say
                self.answer(409, {"expected_previous_seq": newest})
                return
        with self.server.db:
            for event in delivery.events:  # one that is known already changes nothing
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
    server.webhook = Webhook(*os.environ["LEDGER_SECRET"].split())
    server.db = sqlite3.connect(sys.argv[2])
    server.db.execute(SCHEMA)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
