-- serves: 0010
-- OAuth 2.0 clients of directories, their access tokens, and the assertions that they have used.
create table clients (
    id           uuid primary key,
    directory    int not null references directories,
    name         text not null,
    auth         text not null check (auth in ('secret', 'jwt')),
    secret_hash  bytea,
    former_hash  bytea,
    former_until timestamptz,
    jwks         text,
    jwks_uri     text,
    created_by   text,
    rotations    int not null default 0,
    created_at   timestamptz not null,
    rotated_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    seal         bytea not null
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
create index clients_of_directory on clients (directory);

-- keep_client: whom a client belongs to and its keys never change, its secret only with a further rotation, and it is revoked once.
create function keep_client() returns trigger language plpgsql as $$
begin
    if (new.id, new.directory, new.name, new.auth, new.jwks, new.jwks_uri, new.created_by, new.created_at)
       is distinct from
       (old.id, old.directory, old.name, old.auth, old.jwks, old.jwks_uri, old.created_by, old.created_at)
       or (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at)
       or ((new.secret_hash, new.former_hash, new.former_until, new.rotated_at, new.seal)
           is distinct from
           (old.secret_hash, old.former_hash, old.former_until, old.rotated_at, old.seal)
           and (new.rotations <> old.rotations + 1 or old.revoked_at is not null))
       or new.rotations not in (old.rotations, old.rotations + 1)
       or (old.last_used_at is not null and (new.last_used_at is null or new.last_used_at < old.last_used_at))
    then
        raise exception 'a client keeps what it is: this change of % is refused', old.id using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger kept before update on clients for each row execute function keep_client();
create trigger append_only before delete or truncate on clients for each statement execute function refuse_change();
alter table clients enable always trigger kept;
alter table clients enable always trigger append_only;

create table access_tokens (
    id         uuid primary key,
    hash       bytea not null unique,
    client     uuid not null references clients,
    expires_at timestamptz not null,
    seal       bytea not null
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index access_tokens_expire on access_tokens (expires_at);

create table client_assertions (
    client     uuid not null references clients,
    jti        bytea not null,
    expires_at timestamptz not null,
    primary key (client, jti)
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index client_assertions_expire on client_assertions (expires_at);
