-- Tokens as facts of the log: who issued one, which replaced which, and what binds the row to its events.
alter table tokens
    add created_by    text,   -- the principal, as in leaves; null where no event says it
    add supersedes    uuid,
    add superseded_by uuid,   -- set by a rotation, which brings expires_at forward: this one lives on until then
    add seal          bytea;  -- HMAC over what the row grants, with a key that only the service has. Null: bound at the next start

update tokens t set created_by = (
    select convert_from(e.leaf, 'UTF8')::json ->> 'actor' from events e where e.obj = t.id and e.type = 18 order by e.rv limit 1
);

-- keep_token: a token only ever gets less. Whoever owns the table can switch this off: then the seal and the events tell.
create function keep_token() returns trigger language plpgsql as $$
begin
    if (new.id, new.hash, new.role, new.name, new.directories, new.types, new.consumers, new.bodies, new.created_at, new.created_by, new.supersedes)
       is distinct from
       (old.id, old.hash, old.role, old.name, old.directories, old.types, old.consumers, old.bodies, old.created_at, old.created_by, old.supersedes)
       or new.expires_at > old.expires_at
       or (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at)
       or (coalesce(old.superseded_by::text, old.revoked_at::text) is not null and new.superseded_by is distinct from old.superseded_by)
       or (old.seal is not null and new.seal is distinct from old.seal and new.superseded_by is not distinct from old.superseded_by)
       or (old.last_used_at is not null and (new.last_used_at is null or new.last_used_at < old.last_used_at))
    then
        raise exception 'a token only ever gets less: this change of % is refused', old.id using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger only_less before update on tokens for each row execute function keep_token();
create trigger append_only before delete or truncate on tokens for each statement execute function refuse_change();
alter table tokens enable always trigger only_less;
alter table tokens enable always trigger append_only;
