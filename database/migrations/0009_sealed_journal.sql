-- The journal's sentences and filters may quote what a client submitted: they are sealed. Those of before are dropped, and not only
-- hidden: changing the type writes the table anew. `reason` tells equal sentences apart from others without showing either.
alter table requests
    alter detail type bytea using null,
    alter shape  type bytea using null,
    add   reason bytea;

-- What receivers answered is sealed as its own kind of note from now on; what was sealed before opens no more.
update open_deliveries set answer = null where answer is not null;
