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

-- erasures_so_far --
-- The number of the last erasure.
select coalesce(max(number), 0) from ledger.erasures;

-- erasure_differences --
-- Erased users and groups (5: user.erased, 9: group.erased) that still have a key or a body, a row of an erasure without its event, and users
-- and groups that exist without a key.
with erased as (select directory, obj, seq from ledger.events where type in (5, 9))
select d.slug, f.obj, f.problem from (
    select e.directory, e.obj, 'it was erased, and its key is still there' as problem
    from erased e join ledger.subject_keys k on k.obj = e.obj
    union all
    select e.directory, e.obj, 'it was erased, and a sealed body of it is still there'
    from erased e
    cross join lateral (
        select from ledger.events v join ledger.bodies b on b.directory = v.directory and b.seq = v.seq where v.obj = e.obj and v.mem is null limit 1
    ) left_over
    union all
    select x.directory, x.obj, 'its erasure has a receipt, and no event says that it was erased'
    from ledger.erasures x where not exists (select from erased e where e.obj = x.obj and e.seq = x.seq)
    union all
    select s.directory, s.obj, 'its key is missing, and no event says that it was erased'
    from (select directory, id as obj from ledger.users union all select directory, id from ledger.groups) s
    where not exists (select from ledger.subject_keys k where k.obj = s.obj)
) f join ledger.directories d on d.id = f.directory limit 20;
