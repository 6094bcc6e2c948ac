-- facts --
-- What a backup is of: the ledger, the id of its key, its last position with the leaf hash there, the time, the server's version.
-- Then its key epochs, and the wrapped key of the MAC domain $1.
select l.id, l.kek_id, coalesce(h.position, 0), h.leaf_hash, clock_timestamp(), current_setting('server_version_num')::int, (
    select json_agg(json_build_object('epoch', epoch, 'provider', provider, 'root', root, 'key_id', encode(kek_id, 'hex'), 'wrapped', encode(wrapped, 'hex'))
        order by epoch) from ledger.key_epochs where wrapped is not null),
    (select wrapped from ledger.domain_keys where domain = $1)
from ledger.ledger l left join lateral (
    select c.position + c.size - 1 as position, e.leaf_hash from (select * from ledger.commits order by position desc limit 1) c
    join ledger.events e on e.directory = c.directory and e.seq = c.seq + c.size - 1) h on true;

-- progress --
-- Of the base backup that runs: bytes sent, and bytes in all.
select backup_streamed, backup_total from pg_stat_progress_basebackup order by pid desc limit 1;

-- recovered --
-- Of a cluster that was started from a backup: the ledger, the id of its key, its last position, the leaf hash at $1.
select l.id, l.kek_id, coalesce((select position + size - 1 from ledger.commits order by position desc limit 1), 0), (
    select e.leaf_hash from (select position, directory, seq, size from ledger.commits where position <= $1 order by position desc limit 1) c
    join ledger.events e on e.directory = c.directory and e.seq = c.seq + c.size - 1)
from ledger.ledger l;
