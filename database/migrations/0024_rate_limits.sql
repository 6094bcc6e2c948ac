-- serves: 0010
-- rate_limits: how many SCIM requests a directory may send, where an operator set it; without a row its profile says it.
create table rate_limits (
    directory  int primary key references directories,
    per_second int not null check (per_second >= 25),
    burst      int not null check (burst >= per_second)
);
-- sent_requests: how many requests of each directory with a limit count against it, at the time of the newest. Losing it costs nobody
-- anything: a limit begins anew. So it is not logged, and counting waits for no disk.
create unlogged table sent_requests (
    directory int primary key references directories,
    spent     double precision not null,
    at        timestamptz not null
) with (fillfactor = 50);
