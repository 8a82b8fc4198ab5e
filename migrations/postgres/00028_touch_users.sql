-- +goose Up

-- +goose StatementBegin
-- Moves last_activity of users on, where it is by an hour or more. The arrays belong together; a user that is not of that company is
-- passed over. Returns how many were moved on.
--
-- A company whose own tables are locked, broken or guarded by a trigger that fails is passed over with a warning, whatever the error is.
-- What concerns the server or the transaction ends the call: a lost connection (08), a rollback for the sake of order (40), a full disk
-- (53), a cancel, a timeout or a shutdown (57). A company's function may raise these codes, too. Then the error's first place is a RAISE,
-- where the server's own errors have another statement, and it is the company's like any other.
CREATE OR REPLACE FUNCTION public.touch_users(companies text[], users text[], times timestamptz[]) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    moved  bigint := 0;
    wanted record;
    place  text;
    allowed CONSTANT interval := current_setting('statement_timeout')::interval; -- 0: no limit
BEGIN
    FOR wanted IN
        WITH latest AS (
            SELECT i.company_id, i.user_id, max(i.at) AS at
            FROM unnest(companies, users, times) AS i (company_id, user_id, at)
            WHERE i.at IS NOT NULL GROUP BY i.company_id, i.user_id
        ), locked AS (
            SELECT d.user_id, d.company_id, l.at FROM public.user_directory AS d
            JOIN latest AS l ON l.user_id = d.user_id AND l.company_id = d.company_id
            WHERE d.last_activity IS NULL OR l.at >= d.last_activity + interval '1 hour'
            ORDER BY d.user_id FOR NO KEY UPDATE OF d
        ), written AS (
            UPDATE public.user_directory AS d SET last_activity = l.at FROM locked AS l
            WHERE d.user_id = l.user_id RETURNING d.company_id, d.user_id, l.at
        )
        SELECT w.company_id, array_agg(w.user_id ORDER BY w.user_id) AS ids, array_agg(w.at ORDER BY w.user_id) AS at
        FROM written AS w GROUP BY w.company_id ORDER BY w.company_id
    LOOP
        moved := moved + cardinality(wanted.ids);
        BEGIN
            -- Without a table the company has no schema of its own. Looking is an error where the schema may not be used.
            IF to_regclass(format('%I.users', public.tenant_schema_name(wanted.company_id))) IS NOT NULL THEN
                EXECUTE format($touch$
                    WITH locked AS (
                        SELECT u.user_id, i.at FROM %1$I.users AS u JOIN unnest($1, $2) AS i (user_id, at) USING (user_id)
                        WHERE u.last_activity IS NULL OR i.at >= u.last_activity + interval '1 hour'
                        ORDER BY u.user_id FOR NO KEY UPDATE OF u SKIP LOCKED -- it is moved on an hour later
                    )
                    UPDATE %1$I.users AS u SET last_activity = l.at FROM locked AS l WHERE u.user_id = l.user_id
                    $touch$, public.tenant_schema_name(wanted.company_id)) USING wanted.ids, wanted.at;
                SET CONSTRAINTS ALL IMMEDIATE; -- a trigger that is deferred would fail at the end, for all companies
            END IF;
        EXCEPTION
            WHEN OTHERS OR query_canceled OR assert_failure THEN -- OTHERS has neither of the two
                GET STACKED DIAGNOSTICS place = PG_EXCEPTION_CONTEXT;
                -- A statement has one timeout: if it was over, and a trigger has hidden that, nothing bounds what follows.
                IF left(SQLSTATE, 2) IN ('08', '40', '53', '57') AND split_part(place, E'\n', 1) !~ ' RAISE$'
                    OR allowed > interval '0' AND clock_timestamp() >= statement_timestamp() + allowed THEN
                    RAISE;
                END IF;
                -- Without the message, which may quote a user's data, and goes to the server's log.
                RAISE WARNING 'last_activity in the schema of company % is not moved on: SQLSTATE %', wanted.company_id, SQLSTATE;
        END;
    END LOOP;
    RETURN moved;
END $$;
-- +goose StatementEnd
