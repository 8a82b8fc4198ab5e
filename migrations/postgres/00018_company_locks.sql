-- +goose Up

-- The locks of companies are rows here, and not advisory locks: those have keys that can be guessed, and every login may
-- take them. A company need not be registered: the events that wait for it are ordered by the same lock.
CREATE TABLE public.company_locks (
    company_id text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE public.company_locks IS
    'One row a company: a transaction that changes the company has locked the row. No role is granted a right on it.';
COMMENT ON COLUMN public.company_locks.company_id IS 'Any company an event was received for, registered or not.';

-- +goose StatementBegin
-- Makes all others who do the same for this company wait until the transaction ends. To be taken before anything else.
CREATE OR REPLACE FUNCTION public.lock_company(company_id text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOOP
        PERFORM FROM public.company_locks AS l WHERE l.company_id = lock_company.company_id FOR UPDATE;
        EXIT WHEN FOUND;
        -- Another transaction that inserts the same row just now is waited for; then its row is there to be locked.
        INSERT INTO public.company_locks AS l (company_id) VALUES (lock_company.company_id) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
END $$;
-- +goose StatementEnd
