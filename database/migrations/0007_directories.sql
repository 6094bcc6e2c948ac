-- directory_states: what a directory is, where it is not simply active: a read model of its own log, a row only where there is something
-- to say. `closed_seq` ends all access of the directory in one row: whoever reads activity at that seq or later reads "no".
-- directories.closed_at, which nothing ever set, stays for releases that read it.
create table directory_states (
    directory  int primary key,
    state      text not null check (state in ('active', 'paused', 'closed', 'deleted')),
    since      bigint not null,   -- when it became so, in microseconds since the epoch
    closed_seq bigint,            -- of its directory.closed
    closed_at  bigint
);
