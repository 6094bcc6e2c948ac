"""Row 22: erasing users one after the other while others are created."""

import threading
import time
from typing import Any

import httpx

from bench.environment import Service, Stage
from bench.figures import Figure, Sizes, count

ERASED = 1_000
ROUND = 1_000  # creates of a round
COMPLETE_S = 300


def erasing(stage: Stage, sizes: Sizes) -> list[Figure]:
    """The rate of creates beside erasures, compared with that before and after them; and each receipt is complete in the end."""
    service = stage.service()
    stage.say(f"{sizes.grown} users, of whom {ERASED} are erased")
    users = service.make_users(sizes.grown)
    before = _rate(service)
    eraser = _Eraser(service, users[:ERASED])
    eraser.start()
    beside: list[float] = []
    while eraser.is_alive():
        beside.append(_rate(service))
    eraser.join()
    complete_s = _completed(service)
    after = _rate(service)
    alone, during = (before + after) / 2, sum(beside) / len(beside)
    work = f"creates, while {count(ERASED)} of {count(sizes.grown)} users are erased"
    said = f"{len(set(eraser.receipts))} receipts, {eraser.rate:.0f} erasures/s, complete {complete_s:.0f} s later"
    return [
        Figure(22, work, f"{during:.0f}/s", f"alone {alone:.0f}/s", f"{during / alone:.2f} ×", "≥ 0.8 ×", during >= 0.8 * alone,
               {"during": during, "alone": alone}),
        Figure(22, "   receipts", said, passed=len(set(eraser.receipts)) == ERASED),
    ]  # fmt: skip


def _rate(service: Service) -> float:
    return service.drive(service.creates(ROUND)).rate


class _Eraser(threading.Thread):
    """An admin who erases one user after the other."""

    def __init__(self, service: Service, users: list[str]) -> None:
        super().__init__(daemon=True)
        self._service, self._users, self.receipts, self.rate = service, users, list[str](), 0.0

    def run(self) -> None:
        began = time.perf_counter()
        with httpx.Client(base_url=f"http://127.0.0.1:{self._service.port}", timeout=60, trust_env=False) as http:
            for user in self._users:
                body = {"subject": {"type": "User", "id": user}, "reason": "asked for"}
                answer = http.post("/v1/directories/acme/erasures", json=body, headers=self._service.role("admin"))
                answer.raise_for_status()
                self.receipts.append(answer.json()["id"])
        self.rate = len(self.receipts) / (time.perf_counter() - began)


def _completed(service: Service) -> float:
    """Seconds until every receipt is complete."""
    began = time.perf_counter()
    while time.perf_counter() - began < COMPLETE_S:
        found: list[Any] = service.http.get(
            "/v1/directories/acme/erasures", params={"limit": 1000}, headers=service.role("admin")
        ).json()["data"]
        if all(receipt["state"] == "complete" for receipt in found):
            return time.perf_counter() - began
        time.sleep(0.5)
    raise RuntimeError(f"receipts are not complete after {COMPLETE_S} s")
