-- note_uses --
-- Every few seconds for all used tokens and clients, so that a request does not update a row. The time never goes back: the trigger would refuse the
-- whole statement. Losing it is harmless, so it does not wait for a synchronous standby.
with u as (select * from unnest($1::uuid[], $2::bytea[]) u(id, place)), of_clients as (
    update clients c set last_used_at = greatest(c.last_used_at, clock_timestamp()), last_used_place = u.place
    from u where c.id = u.id returning set_config('synchronous_commit', 'local', true))
update tokens t set last_used_at = greatest(t.last_used_at, clock_timestamp()), last_used_place = u.place
from u where t.id = u.id
returning set_config('synchronous_commit', 'local', true);

-- note_refusals --
-- Tokens that were sent after their end, by their hashes: whoever sent one has it. Unknown hashes match nothing.
update tokens set refused_at = clock_timestamp() where hash = any($1::bytea[])
and (revoked_at is not null or expires_at <= clock_timestamp())
returning set_config('synchronous_commit', 'local', true);

-- last_uses --
-- The sealed places of tokens and clients that have one.
select id, last_used_place from tokens where id = any($1::uuid[]) and last_used_place is not null
union all
select id, last_used_place from clients where id = any($1::uuid[]) and last_used_place is not null;
