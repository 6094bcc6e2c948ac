-- Answers to POSTs that carried an Idempotency-Key, so that one sent again is answered again and not carried out again.
create table idempotent_requests (
    owner       uuid not null,         -- the token that sent it; all zeros: the machine itself
    key         bytea not null,        -- SHA-256 of the key: clients put names into it
    fingerprint bytea not null,        -- SHA-256 of method, path, query and body: the key stands for this request alone
    request     uuid not null,         -- whose commits say whether it was carried out
    begun_at    timestamptz not null default clock_timestamp(),
    over        boolean not null default false,  -- it ended, and not with an answer that is kept
    answer      bytea,                 -- sealed, since it may show a secret; null while it is under way
    primary key (owner, key)
);
create index idempotent_requests_begun on idempotent_requests (begun_at);
