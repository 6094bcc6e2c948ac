-- serves: 0010
-- Rows that come and go: none may leave more dead ones behind than are there. docs/operations.md says of each table how it grows.

-- checkpoints: within a second the newest is moved in place, at most 50 times: with room on its page that is a HOT update, whose dead versions
-- go without a vacuum. Then another begins, so that under an old snapshot no chain of versions grows long. begun: null in rows of before.
alter table checkpoints add begun timestamptz, add moves int not null default 0;
alter table checkpoints alter begun set default clock_timestamp();
alter table replay_progress add moves int not null default 0;

-- thinned: up to which checkpoint the history of an epoch was thinned out, for each of its steps: what comes of age is looked at once.
create table thinned (
    consumer int not null,
    epoch    int not null,
    step     smallint not null,
    through  bigint not null,
    primary key (consumer, epoch, step)
) with (fillfactor = 50);

-- What is updated in place has room for it on its page.
alter table checkpoints set (fillfactor = 50);
alter table replay_progress set (fillfactor = 50);
alter table consumer_leases set (fillfactor = 50);
alter table delivery_workers set (fillfactor = 50);
alter table open_deliveries set (fillfactor = 70);
alter table idempotent_requests set (fillfactor = 70);
alter table tokens set (fillfactor = 85);

-- What is deleted is cleaned up after soon: a fifth of the table, which is the server's default, may be a month of it.
alter table checkpoints set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table replay_progress set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table open_deliveries set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table consumer_leases set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
alter table delivery_workers set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
alter table idempotent_requests set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
alter table requests set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.02);
alter table tokens set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
alter table users set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
alter table states set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
alter table memberships set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);
