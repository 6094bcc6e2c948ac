-- commit_differences --
-- Commits whose row does not agree with number and types of their events.
select c.seq from ledger.commits c
left join lateral (
    select count(*) n, bit_or(1::bigint << e.type) mask from ledger.events e
    where e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size) e on true
where c.directory = $1 and (e.n is distinct from c.size or e.mask is distinct from c.types) limit 20;

-- tokens_gone --
-- Tokens with an event token.issued (18) but without a row.
select distinct e.obj from ledger.events e where e.directory = $1 and e.type = 18 and not exists (select from ledger.tokens t where t.id = e.obj) limit 20;

-- clients_gone --
-- OAuth 2.0 clients with an event client.created (53) but without a row.
select distinct e.obj from ledger.events e where e.directory = $1 and e.type = 53 and not exists (select from ledger.clients c where c.id = e.obj) limit 20;

-- position_holes --
-- Places where positions are not dense.
select p.position + p.size from (select position, size, lead(position) over (order by position) following from ledger.commits) p
where p.following is not null and p.following <> p.position + p.size limit 20;
