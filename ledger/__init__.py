"""The write side: events, decisions, sealing, the group-commit writer, the feed, and the eventsourcing view of the log."""
