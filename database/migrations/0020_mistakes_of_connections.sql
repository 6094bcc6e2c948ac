-- serves: 0010
-- one by one
-- Requests with a mistake in the URL or the token, counted for the directory that they were meant for. `times`: the number of requests
-- of an entry.
alter table requests add column if not exists mistake text, add column if not exists times int not null default 1;

-- The health of a directory reads them apart from its requests.
create index concurrently if not exists requests_mistakes on requests (directory, id) where mistake is not null;
