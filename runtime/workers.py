"""Several serving processes behind one socket (LEDGER_WORKERS). Each has its own writer; the database orders them."""

import multiprocessing
import multiprocessing.connection
import signal
import socket
from multiprocessing.process import BaseProcess

import structlog

from runtime.bootstrap import Urls
from runtime.logs import configure_logs
from runtime.serve import Signals, run_http
from runtime.settings import Settings

_log = structlog.get_logger("runtime.workers")


def serve_workers(settings: Settings, urls: Urls, sock: socket.socket, signals: Signals) -> None:
    """Run the workers until a signal; a worker that dies is replaced."""
    context = multiprocessing.get_context("spawn")

    def start() -> BaseProcess:
        process = context.Process(target=_work, args=(settings, urls, sock))
        process.start()
        return process

    workers = [start() for _ in range(settings.workers)]
    while not signals.seen:
        # Wakes at once when a worker ends; the time limit only bounds how late a signal is noticed.
        multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=0.2)
        for place, worker in enumerate(workers):
            if worker.exitcode is not None and not signals.seen:
                _log.error("worker_died", exitcode=worker.exitcode)
                workers[place] = start()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def _work(settings: Settings, urls: Urls, sock: socket.socket) -> None:
    configure_logs(settings.log_format)
    signals = Signals()
    signal.signal(signal.SIGTERM, signals.handle)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent tells us when
    run_http(settings, urls, sock, signals)
