-- +goose Up

-- Emails are unique within a company whatever their case. What is compared is lower() by the database's collation; two emails that
-- were taken before and differ by case only both stay.
CREATE INDEX user_directory_by_email ON public.user_directory (company_id, lower(email));

-- +goose StatementBegin
-- Adds a user, or changes the email of one. A user of another company and an email of another user of the same company,
-- in whatever case, are a unique_violation, of constraint user_directory_pkey and users_email_key.
CREATE OR REPLACE FUNCTION public.tenant_user_put(company_id text, user_id text, email text, at timestamptz) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tenant  text := public.tenant_schema_name(tenant_user_put.company_id);
    company text := tenant_user_put.company_id;
    usr     text := tenant_user_put.user_id;
    address text := tenant_user_put.email;
    owner   text;
    known   text;
    sub     public.subscriptions;
BEGIN
    PERFORM public.lock_company(company); -- what the check of the email has seen holds until the end
    SELECT d.company_id, d.email INTO owner, known FROM public.user_directory AS d WHERE d.user_id = usr FOR NO KEY UPDATE;
    IF (owner IS NULL OR known <> address) AND EXISTS (
            SELECT FROM public.user_directory AS d
            WHERE d.company_id = company AND lower(d.email) = lower(address) AND d.user_id <> usr) THEN
        RAISE EXCEPTION 'another user of company % has this email', company
            USING ERRCODE = 'unique_violation', SCHEMA = tenant, TABLE = 'users', CONSTRAINT = 'users_email_key';
    ELSIF owner IS NULL THEN
        INSERT INTO public.user_directory (user_id, company_id, email, created_at) VALUES (usr, company, address, at);
    ELSIF owner <> company THEN
        RAISE EXCEPTION 'user % belongs to another company', usr
            USING ERRCODE = 'unique_violation', SCHEMA = 'public', TABLE = 'user_directory', CONSTRAINT = 'user_directory_pkey';
    ELSIF known <> address THEN
        UPDATE public.user_directory AS d SET email = address WHERE d.user_id = usr;
    END IF;
    IF to_regnamespace(quote_ident(tenant)) IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO sub FROM public.subscriptions AS s WHERE s.company_id = company;
    -- One who was removed comes back as a new one.
    EXECUTE format($put$
        INSERT INTO %1$I.users AS u (user_id, email, subscription_tier, subscription_start_date, subscription_end_date,
            subscription_limits, created_at, updated_at)
        VALUES ($1, $2, coalesce($3, 'free'), $4, $5, $6, $7, $7)
        ON CONFLICT (user_id) DO UPDATE SET
            email = excluded.email, updated_at = excluded.updated_at,
            subscription_tier = excluded.subscription_tier, subscription_start_date = excluded.subscription_start_date,
            subscription_end_date = excluded.subscription_end_date, subscription_limits = excluded.subscription_limits,
            created_at = CASE u.subscription_status WHEN 'removed' THEN excluded.created_at ELSE u.created_at END,
            subscription_status = CASE u.subscription_status WHEN 'removed' THEN 'active' ELSE u.subscription_status END
        $put$, tenant) USING usr, address, sub.tier, sub.period_start, sub.period_end, sub.limits, at;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Moves last_activity of users on, where it is by an hour or more. The arrays belong together; a user that is not of that
-- company is passed over. A company whose own tables are locked or broken is passed over with a warning. Returns how many were moved on.
CREATE OR REPLACE FUNCTION public.touch_users(companies text[], users text[], times timestamptz[]) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    moved  bigint := 0;
    wanted record;
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
        IF to_regclass(format('%I.users', public.tenant_schema_name(wanted.company_id))) IS NULL THEN
            CONTINUE; -- a company without a schema of its own
        END IF;
        BEGIN
            EXECUTE format($touch$
                WITH locked AS (
                    SELECT u.user_id, i.at FROM %1$I.users AS u JOIN unnest($1, $2) AS i (user_id, at) USING (user_id)
                    WHERE u.last_activity IS NULL OR i.at >= u.last_activity + interval '1 hour'
                    ORDER BY u.user_id FOR NO KEY UPDATE OF u SKIP LOCKED -- it is moved on an hour later
                )
                UPDATE %1$I.users AS u SET last_activity = l.at FROM locked AS l WHERE u.user_id = l.user_id
                $touch$, public.tenant_schema_name(wanted.company_id)) USING wanted.ids, wanted.at;
        EXCEPTION
            -- Locked or broken: these are one company's own tables, and the others go on.
            WHEN lock_not_available OR SQLSTATE '0A000' OR SQLSTATE '22000' OR SQLSTATE '23000' OR SQLSTATE '3F000' OR SQLSTATE '42000'
                OR SQLSTATE '54000' OR SQLSTATE 'P0000' THEN
                RAISE WARNING 'last_activity in the schema of company % is not moved on: %', wanted.company_id, SQLERRM;
        END;
    END LOOP;
    RETURN moved;
END $$;
-- +goose StatementEnd
