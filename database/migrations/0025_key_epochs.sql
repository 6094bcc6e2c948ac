-- serves: 0010
-- Key-encryption keys have epochs (docs/concepts.md, "Personal data"). The next start of the service makes epoch 1 of the key that the ledger has;
-- processes of releases before go on with it, until `key rotate` makes another one.
create table key_epochs (
    epoch        int primary key check (epoch > 0),
    kek_id       bytea not null,
    provider     text not null check (provider in ('file', 'env', 'pkcs11', 'aws-kms', 'vault')),
    root         text not null,
    wrapped      bytea,
    made_at      timestamptz not null default clock_timestamp(),
    active_at    timestamptz,
    rewrapped_at timestamptz,
    destroyed_at timestamptz
);

create table domain_keys (
    domain  bytea primary key,
    wrapped bytea not null
);

-- The serving role makes the first epoch; what it inserts later is ignored. A row that nobody can open would prevent every start.
create function keep_epochs() returns trigger language plpgsql as $$
begin
    if current_user = 'ledger_app' and exists (select from ledger.key_epochs) then
        return null;
    end if;
    return new;
end $$;
create trigger first_only before insert on key_epochs for each row execute function keep_epochs();
create trigger first_only before insert on domain_keys for each row execute function keep_epochs();
alter table key_epochs enable always trigger first_only;
alter table domain_keys enable always trigger first_only;
