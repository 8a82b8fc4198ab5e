-- +goose Up

-- The change feed is read in pages, in the order of this index: however much has changed, no statement reads more than a page.
CREATE INDEX changes_by_place ON public.changes (xid, version);
DROP INDEX public.changes_by_transaction;

-- +goose StatementBegin
-- Where an answer comes from: this run of this server on this line of its history, and this table of changes. Transaction ids and
-- versions that another origin gave mean nothing here: after a failover to a standby without the primary's last transactions they are
-- given again to others. A standby has no origin ('standby'): what it holds may be old. Every user may call it (no SET, so that it is
-- inlined into the statements that read users and companies).
CREATE FUNCTION public.data_origin() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'
        ELSE pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8) -- the timeline
            || '-' || (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint
            || '-' || pg_catalog.to_regclass('public.changes')::oid END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION public.data_origin() IS
    'The timeline, the start of the server and the table of changes that an answer comes from. Copies of another origin are stale.';
