-- +goose Up

-- The users of a company are in two tables: user_directory, which knows whose a user is, and users in the company's
-- schema. These functions write both; of a company without a schema, as one made by hand, they write the directory. The
-- order of locks is the same in all: the company, rows of user_directory, rows of users, each by user_id.

-- +goose StatementBegin
-- Adds a user, or changes the email of one. A user of another company and an email of another user of the same company
-- are a unique_violation, of constraint user_directory_pkey and users_email_key.
CREATE FUNCTION public.tenant_user_put(company_id text, user_id text, email text, at timestamptz) RETURNS void LANGUAGE plpgsql
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
    PERFORM public.lock_company(company);
    SELECT d.company_id, d.email INTO owner, known FROM public.user_directory AS d WHERE d.user_id = usr FOR NO KEY UPDATE;
    IF NOT FOUND THEN
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
-- Takes a user out of a company: out of user_directory, and out of the company's users unless an account or a position
-- names the user there. Then the row stays, as removed and without the email. Returns whether there was such a user.
CREATE FUNCTION public.tenant_user_remove(company_id text, user_id text, at timestamptz) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tenant  text := public.tenant_schema_name(tenant_user_remove.company_id);
    company text := tenant_user_remove.company_id;
    usr     text := tenant_user_remove.user_id;
    gone    boolean;
BEGIN
    PERFORM public.lock_company(company);
    DELETE FROM public.user_directory AS d WHERE d.user_id = usr AND d.company_id = company;
    gone := FOUND;
    IF to_regnamespace(quote_ident(tenant)) IS NULL THEN
        RETURN gone;
    END IF;
    -- An account that is made just now waits for the row, or has locked it before this looks.
    EXECUTE format('SELECT FROM %I.users WHERE user_id = $1 FOR UPDATE', tenant) USING usr;
    EXECUTE format($remove$
        UPDATE %1$I.users AS u SET subscription_status = 'removed', email = 'removed:' || user_id, updated_at = $2
        WHERE u.user_id = $1 AND (EXISTS (SELECT FROM %1$I.mt5_accounts AS a WHERE a.user_id = $1)
            OR EXISTS (SELECT FROM %1$I.trading_positions AS p WHERE p.user_id = $1))
        $remove$, tenant) USING usr, at;
    EXECUTE format('DELETE FROM %I.users WHERE user_id = $1 AND subscription_status <> ''removed''', tenant) USING usr;
    RETURN gone;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Gives all users of a company what its subscription says, and seats them: the first max_users (null: all) by created_at
-- and user_id are active, the others suspended. Returns those whose seat has changed, with their new status.
CREATE FUNCTION public.seat_users(company_id text, tier text, start_at timestamptz, end_at timestamptz, limits jsonb,
    max_users bigint, at timestamptz) RETURNS TABLE (user_id text, status text) LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tenant  text := public.tenant_schema_name(seat_users.company_id);
    company text := seat_users.company_id;
BEGIN
    PERFORM public.lock_company(company);
    PERFORM FROM public.companies AS c WHERE c.company_id = company FOR NO KEY UPDATE;
    PERFORM FROM public.user_directory AS d WHERE d.company_id = company ORDER BY d.user_id FOR NO KEY UPDATE;
    IF to_regnamespace(quote_ident(tenant)) IS NULL THEN
        RETURN QUERY WITH seats AS (
            SELECT d.user_id, CASE WHEN max_users IS NULL OR row_number() OVER (ORDER BY d.created_at, d.user_id) <= max_users
                THEN 'active' ELSE 'suspended' END AS after
            FROM public.user_directory AS d WHERE d.company_id = company
        ), written AS (
            UPDATE public.user_directory AS d SET subscription_status = seats.after
            FROM seats WHERE d.user_id = seats.user_id AND d.subscription_status <> seats.after
            RETURNING d.user_id, d.subscription_status
        )
        SELECT w.user_id, w.subscription_status FROM written AS w ORDER BY w.user_id;
        RETURN;
    END IF;
    EXECUTE format('SELECT FROM %I.users ORDER BY user_id FOR NO KEY UPDATE', tenant);
    RETURN QUERY EXECUTE format($seat$
        WITH seats AS (
            SELECT user_id, subscription_status AS before,
                CASE WHEN $2 IS NULL OR row_number() OVER (ORDER BY created_at, user_id) <= $2 THEN 'active' ELSE 'suspended' END AS after
            FROM %1$I.users WHERE subscription_status <> 'removed'
        ), written AS (
            UPDATE %1$I.users AS u SET subscription_tier = $3, subscription_start_date = $4, subscription_end_date = $5,
                subscription_limits = $6, updated_at = $7, subscription_status = seats.after
            FROM seats WHERE u.user_id = seats.user_id
        ), told AS ( -- every row of the directory that is written is told to all who keep copies: only those that change
            UPDATE public.user_directory AS d SET subscription_status = seats.after
            FROM seats WHERE d.user_id = seats.user_id AND d.company_id = $1 AND d.subscription_status <> seats.after
        )
        SELECT user_id, after FROM seats WHERE before <> after ORDER BY user_id
        $seat$, tenant) USING company, max_users, tier, start_at, end_at, limits, at;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Moves last_activity of users on, where it is by an hour or more. The arrays belong together; a user that is not of that
-- company is passed over. Returns how many were moved on.
CREATE FUNCTION public.touch_users(companies text[], users text[], times timestamptz[]) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
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
        EXECUTE format($touch$
            WITH locked AS (
                SELECT u.user_id, i.at FROM %1$I.users AS u JOIN unnest($1, $2) AS i (user_id, at) USING (user_id)
                WHERE u.last_activity IS NULL OR i.at >= u.last_activity + interval '1 hour'
                ORDER BY u.user_id FOR NO KEY UPDATE OF u
            )
            UPDATE %1$I.users AS u SET last_activity = l.at FROM locked AS l WHERE u.user_id = l.user_id
            $touch$, public.tenant_schema_name(wanted.company_id)) USING wanted.ids, wanted.at;
    END LOOP;
    RETURN moved;
END $$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION public.tenant_user_put(text, text, text, timestamptz), public.tenant_user_remove(text, text, timestamptz),
    public.seat_users(text, text, timestamptz, timestamptz, jsonb, bigint, timestamptz),
    public.touch_users(text[], text[], timestamptz[]) FROM PUBLIC;

COMMENT ON FUNCTION public.tenant_user_put(text, text, text, timestamptz) IS 'Adds a user to a company, or changes the email of one.';
COMMENT ON FUNCTION public.tenant_user_remove(text, text, timestamptz) IS 'Takes a user out of a company; says whether there was one.';
COMMENT ON FUNCTION public.seat_users(text, text, timestamptz, timestamptz, jsonb, bigint, timestamptz) IS
    'Gives all users of a company its subscription, makes the oldest active and the others suspended, and returns whose seat has changed.';
COMMENT ON FUNCTION public.touch_users(text[], text[], timestamptz[]) IS 'Moves last_activity of users on, where it is by an hour or more.';
