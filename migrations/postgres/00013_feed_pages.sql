-- +goose Up

-- The change feed is read in pages, in the order of this index: however much has changed, no statement reads more than a page.
CREATE INDEX changes_by_place ON public.changes (xid, version);
DROP INDEX public.changes_by_transaction;

-- +goose StatementBegin
-- Where an answer comes from: this run of this server on this line of its history, and this table of changes. Transaction ids and
-- versions that another origin gave mean nothing here: after a failover to a standby without the primary's last transactions they are
-- given again to others. A standby has none (null): what it holds may be old. Every user may call it.
CREATE FUNCTION public.data_origin() RETURNS text LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) -- the timeline
            || '-' || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
            || '-' || to_regclass('public.changes')::oid END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION public.data_origin() IS
    'The timeline, the start of the server and the table of changes that an answer comes from. Copies of another origin are stale.';
