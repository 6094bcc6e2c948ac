-- extension_schemas: what an operator registered for a directory beyond the core (RFC 7643 §7). Never changed or removed: data refers to it.
create table extension_schemas (
    id            bigint primary key generated always as identity,
    directory     int not null references directories,
    resource_type text not null check (resource_type in ('User', 'Group')),
    urn           text not null,     -- casefolded
    document      json not null,
    unique (directory, urn)
);
