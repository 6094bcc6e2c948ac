-- All rights of the serving role. Run after each migration; it first revokes everything.
revoke all on all tables in schema ledger from ledger_app;
grant usage on schema ledger to ledger_app;
grant select, insert on events, commits, bodies, subject_keys, ledger to ledger_app;  -- append-only is a grant
grant select, insert on key_epochs, domain_keys to ledger_app;  -- at the first start; the owner rotates
grant update (active_at, rewrapped_at, destroyed_at) on key_epochs to ledger_app;  -- in the commit of the event
grant select on migrations to ledger_app;
grant select, insert on erasures, holds to ledger_app;
grant update (recipients, mentions, vacuumed_at, wal_switched_at, refused, completed_at) on erasures to ledger_app;
grant update (sealed_matter, released_at, released_by) on holds to ledger_app;
revoke all on all tables in schema ledger from ledger_eraser;
grant usage on schema ledger to ledger_eraser;  -- ledger_app becomes it for the two statements of an erasure that delete
grant select (directory, seq, obj, mem) on events to ledger_eraser;
grant select (directory, seq), delete on bodies to ledger_eraser;
grant select (obj, directory), delete on subject_keys to ledger_eraser;
grant select, insert on directories to ledger_app;
grant usage on sequence directories_id_seq to ledger_app;
grant update (profile, closed_at) on directories to ledger_app;
grant select, insert on tokens to ledger_app;
grant update (revoked_at, last_used_at, expires_at, superseded_by, seal, last_used_place, warned_days, refused_at) on tokens to ledger_app;  -- a trigger lets each only shrink what it grants
grant select, insert on clients to ledger_app;
grant update (secret_hash, former_hash, former_until, rotations, rotated_at, seal, revoked_at, last_used_at, last_used_place) on clients to ledger_app;  -- a trigger allows only rotations and the end
grant select, insert, delete on access_tokens, client_assertions to ledger_app;  -- pruned when they have expired
grant update (expires_at) on client_assertions to ledger_app;
grant select, insert, update, delete on users, groups, memberships, states, directory_states to ledger_app;  -- read models
grant select, insert on extension_schemas to ledger_app;
grant usage on sequence extension_schemas_id_seq to ledger_app;
grant select, insert on profiles to ledger_app;
grant select, insert, delete on requests to ledger_app;  -- the journal is pruned by age
grant usage on sequence requests_id_seq to ledger_app;
grant select, insert on consumers, consumer_epochs, checkpoints, open_deliveries, skips, revocation_acks, consumer_leases to ledger_app;
grant usage on sequence consumers_id_seq, checkpoints_id_seq, revocation_acks_id_seq, replay_progress_id_seq to ledger_app;
grant update on consumers, open_deliveries, consumer_leases to ledger_app;
grant update (sealed_reason, at, replay) on skips to ledger_app;  -- one that came again after a seek is skipped again
grant delete on checkpoints, open_deliveries to ledger_app;
grant update (low, through, open, at, moves, leaf) on checkpoints to ledger_app;
grant select, insert, update on thinned to ledger_app;
grant select, insert, update, delete on delivery_workers to ledger_app;
grant select, insert on replays, replay_progress, surge_limits, surge_alarms to ledger_app;
grant update (state, ended_at, sealed_name, sealed_reason, failure) on replays to ledger_app;
grant select, insert on consumer_forks to ledger_app;
grant usage on sequence consumer_forks_id_seq to ledger_app;
grant update (common_position, common, gone, gone_count, places_lost, closed_at, sealed_reason) on consumer_forks to ledger_app;
grant select, insert on replayed to ledger_app;
grant delete on skips, replayed to ledger_app;  -- of events that were delivered after all, or that a restored log does not have
grant update (happened, at) on revocation_acks to ledger_app;  -- where another event stands now at that seq
grant delete on replay_progress to ledger_app;
grant update (done, through, ahead, at, moves) on replay_progress to ledger_app;
grant update (per_hour, action, released) on surge_limits to ledger_app;
grant select, insert, delete on rate_limits to ledger_app;
grant update (per_second, burst) on rate_limits to ledger_app;
grant select, insert on sent_requests to ledger_app;
grant update (spent, at) on sent_requests to ledger_app;
grant select, insert, delete on idempotent_requests to ledger_app;  -- pruned after a day
grant update (request, begun_at, over, answer) on idempotent_requests to ledger_app;
grant select, truncate on unsealed_notes to ledger_app;  -- what an earlier release kept in clear, sealed at the first start of this one
