-- insert_schema --
-- In the transaction that records the event. The constraint refuses a URN that is registered twice.
insert into extension_schemas (directory, resource_type, urn, document) values ($1, $2, $3, $4::json);
