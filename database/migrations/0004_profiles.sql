-- profiles: an operator's own, beside those of the release. Never changed or removed: stored events name them.
create table profiles (
    name       text primary key,     -- name@version
    document   json not null,
    created_at timestamptz not null default now()
);
