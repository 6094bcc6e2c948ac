-- body_seqs_then --
-- Which body users and groups had as of seqs: the place in the request, and the seq of the body.
select k.n, s.body_seq
from unnest($1::int4[], $2::uuid[], $3::int8[]) with ordinality k(d, i, q, n)
cross join lateral (
    select body_seq from states where directory = k.d and obj = k.i and to_seq > k.q and from_seq <= k.q offset 0
) s;

-- sealed_at_places --
-- Sealed bodies by directory and seq with the keys of their resources, in the requested order: whether the budget of $4 bytes reaches it
-- (at least the first one), body, key. Bodies beyond it are not read.
select size is null or total <= $4 or total = size, case when total <= $4 or total = size then ct end, wrapped
from (
    select k.n, b.ct, y.wrapped, octet_length(b.ct) size, sum(coalesce(octet_length(b.ct), 0)) over (order by k.n) total
    from unnest($1::int4[], $2::int8[], $3::uuid[]) with ordinality k(d, q, i, n)
    left join bodies b on b.directory = k.d and b.seq = k.q
    left join subject_keys y on y.obj = k.i
) p order by n;
