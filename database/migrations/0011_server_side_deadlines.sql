-- serves: 0010
-- The server's side of database/deadlines.py, for whoever logs in as ledger_app without being a process of ours. Sessions of ours set
-- the same for themselves. Altering a role takes more than owning the database: where this login may not, that is all there is.
do $$ begin
    alter role ledger_app set tcp_keepalives_idle = 4;
    alter role ledger_app set tcp_keepalives_interval = 2;
    alter role ledger_app set tcp_keepalives_count = 2;
    alter role ledger_app set tcp_user_timeout = 6000;
    alter role ledger_app set client_connection_check_interval = 2000;
exception when insufficient_privilege then
    raise notice 'role ledger_app keeps its settings: this login may not alter it';
end $$;
