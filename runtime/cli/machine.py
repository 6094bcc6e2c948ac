"""The verbs that work on the machine itself: serve, migrate, settings, demo. Their imports are made when they run."""

from typing import Any

from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_rows, say

app = new_group("What works on the machine itself.")


@app.command()
def serve() -> None:
    """Start the service (with the embedded PostgreSQL unless LEDGER_DATABASE_URL is set)."""
    from runtime.failures import explained
    from runtime.machine_database import main_settings
    from runtime.serve import serve as run

    settings = main_settings()
    with explained(settings):
        run(settings)


@app.command()
def migrate(*, as_json: AsJson = False) -> None:
    """Bring the database schema to this release."""
    from runtime.upkeep import migrate_here

    applied = migrate_here()
    say(as_json, {"applied": applied}, "\n".join(applied) or "The schema is current.")


@app.command()
def settings(*, as_json: AsJson = False) -> None:
    """Show every setting with its value, source and meaning; secrets are masked."""
    from runtime.machine_database import main_settings

    found = main_settings()
    rows: list[dict[str, Any]] = []
    for name, field in type(found).model_fields.items():
        value = getattr(found, name)
        source = "environment" if name in found.model_fields_set else "default"
        shown = "" if value is None else str(value)  # SecretStr prints as asterisks
        rows.append({"setting": f"LEDGER_{name.upper()}", "value": shown, "source": source, "meaning": field.description})
    print_rows(as_json, rows)


@app.command()
def demo() -> None:
    """Run the demo against a service (LEDGER_URL), or against one that it starts itself."""
    from runtime.demo import demo as tell

    tell()
