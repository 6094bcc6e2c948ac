-- requests: the journal of SCIM requests, refused ones included. Not part of the log: no bodies, no values, pruned by age.
create table requests (
    id          bigint primary key generated always as identity,
    directory   int not null,
    at          timestamptz not null,
    method      text not null,
    route       text not null,       -- a template, never a path with ids
    shape       text,                -- a filter without its values
    status      smallint not null,
    scim_type   text,
    detail      text,                -- why it was refused, in our words
    profile     text not null,
    tolerances  text[] not null,     -- which deviations it relied on
    events      int not null,        -- how many events it made
    duration_us int not null,
    request_id  uuid not null,
    token       uuid
) with (fillfactor = 100);
create index requests_of_directory on requests (directory, id);
create index requests_at on requests using brin (at);
