"""What a command says where it finds no database on this machine."""

from pathlib import Path

from runtime.machine_database import no_ledger


def test_a_service_with_a_database_by_url_is_not_taken_for_nothing(tmp_path: Path) -> None:
    assert no_ledger(tmp_path).startswith(f"There is no ledger in {tmp_path}. Start one with `make run`")
    (tmp_path / "service-0123456789abcdef.sock").touch()
    assert "set LEDGER_DATABASE_URL (and LEDGER_MIGRATE_URL) as the service has them" in no_ledger(tmp_path)
