-- activate --
-- Epoch $1 seals from now on.
update key_epochs set active_at = clock_timestamp() where epoch = $1 and active_at is null;

-- note_rewrapped --
-- Nothing readable is left in epochs before $1.
update key_epochs set rewrapped_at = clock_timestamp() where epoch = $1;

-- note_destroyed --
-- The event of the destruction of epoch $1 is written.
update key_epochs set destroyed_at = clock_timestamp() where epoch = $1 and destroyed_at is null;
