-- serves: 0010
-- Erasures with their receipts, legal holds, and who may delete sealed attributes: only ledger_eraser, a role without a login.
create table erasures (
    id              uuid primary key,
    number          bigint generated always as identity unique,
    directory       int not null references directories,
    obj             uuid not null unique,
    ot              smallint not null,
    seq             bigint not null,
    sealed_reason   bytea,
    counts          json not null,
    recipients      json,
    mentions        json,
    vacuumed_at     timestamptz,
    wal_switched_at timestamptz,
    refused         text,
    completed_at    timestamptz
);
create index erasures_of_directory on erasures (directory, number);
create index erasures_open on erasures (number) where completed_at is null;

create table holds (
    id            uuid primary key,
    directory     int not null references directories,
    obj           uuid not null,
    ot            smallint not null,
    sealed_matter bytea,
    until         timestamptz,
    placed_at     timestamptz not null default clock_timestamp(),
    placed_by     text not null,
    released_at   timestamptz,
    released_by   text
);
create index holds_of_directory on holds (directory, placed_at, id);
create index holds_of_subject on holds (obj);

alter table requests add column if not exists subject uuid;

create function refuse_erasure() returns trigger language plpgsql as $$
begin
    if current_user <> 'ledger_eraser' then
        raise exception '% is deleted from by ledger_eraser alone: % refused', tg_table_name, tg_op using errcode = 'restrict_violation';
    end if;
    return null;
end $$;
create trigger erased_only before delete on bodies for each statement execute function refuse_erasure();
create trigger erased_only before delete or truncate on subject_keys for each statement execute function refuse_erasure();
alter table bodies enable always trigger erased_only;
alter table subject_keys enable always trigger erased_only;
