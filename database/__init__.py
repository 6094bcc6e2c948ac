"""PostgreSQL: named queries, array encoding, connections, migrations and grants. Knows nothing of SCIM or events."""
