-- +goose Up

-- What was taken in, and what became of it. No reference to companies: a company may be unknown when its event comes.
CREATE TABLE public.inbox (
    source       text        COLLATE "C" NOT NULL,
    event_id     text        COLLATE "C" NOT NULL,
    type         text        COLLATE "C" NOT NULL,
    company_id   text        COLLATE "C" NOT NULL,
    state        text        COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'held', 'done', 'rejected')),
    seq          bigint      GENERATED ALWAYS AS IDENTITY,
    fingerprint  bytea       NOT NULL,
    -- Not jsonb: that can't hold \u0000, which an event may.
    event        json,
    result       jsonb,
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    wait_until   timestamptz,
    applied_at   timestamptz,
    published_at timestamptz,
    PRIMARY KEY (source, event_id)
) WITH (fillfactor = 90);
CREATE INDEX inbox_by_company ON public.inbox (company_id, seq) WHERE state = 'waiting';
CREATE INDEX inbox_by_wait ON public.inbox (wait_until) WHERE state = 'waiting';
CREATE INDEX inbox_by_time ON public.inbox (applied_at) WHERE published_at IS NULL AND state IN ('done', 'rejected');
COMMENT ON TABLE public.inbox IS 'Every company and subscription event by its identity, with its result: one that comes again is found here.';
COMMENT ON COLUMN public.inbox.state IS
    'waiting: for its company; held: for a later version of the service; done: applied; rejected: refused by a rule.';
COMMENT ON COLUMN public.inbox.seq IS 'The order in which waiting events are applied.';
COMMENT ON COLUMN public.inbox.fingerprint IS 'Hash of the data: the same identity with another one is a conflict.';
COMMENT ON COLUMN public.inbox.event IS 'The whole event while it waits; null afterwards.';
COMMENT ON COLUMN public.inbox.result IS 'What is published, exactly.';
COMMENT ON COLUMN public.inbox.wait_until IS 'When a waiting event is rejected.';
COMMENT ON COLUMN public.inbox.published_at IS 'When the result was known to be published; null: it may have to be, again.';

CREATE TABLE public.billing_transactions (
    transaction_id   text        COLLATE "C" PRIMARY KEY,
    company_id       text        COLLATE "C" NOT NULL REFERENCES public.companies,
    transaction_type text        COLLATE "C" NOT NULL
        CHECK (transaction_type IN ('upgrade', 'downgrade', 'renewal', 'expiry', 'cancellation')),
    old_tier         text        COLLATE "C",
    new_tier         text        COLLATE "C",
    amount_minor     bigint      NOT NULL,
    currency         text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    lines            jsonb       NOT NULL CHECK (jsonb_typeof(lines) = 'array'),
    period_start     timestamptz,
    period_end       timestamptz,
    payment_data     jsonb,
    created_at       timestamptz NOT NULL
);
CREATE INDEX billing_transactions_by_company ON public.billing_transactions (company_id, created_at);
COMMENT ON TABLE public.billing_transactions IS 'What a change of a subscription costs or gives back. Kept when a company is purged.';
COMMENT ON COLUMN public.billing_transactions.amount_minor IS 'In minor units of the currency; negative: a credit.';
COMMENT ON COLUMN public.billing_transactions.lines IS '[{"description", "amount_minor"}]; they sum to the amount.';
COMMENT ON COLUMN public.billing_transactions.payment_data IS 'The payment that came with the request; null: none did.';
COMMENT ON COLUMN public.billing_transactions.created_at IS 'The time of the effect, not that of the clock.';

CREATE TABLE public.payments (
    payment_id     text        COLLATE "C" PRIMARY KEY,
    company_id     text        COLLATE "C" NOT NULL REFERENCES public.companies,
    amount_minor   bigint,
    currency       text        CHECK (currency ~ '^[A-Z]{3}$'),
    paid_at        timestamptz,
    method         text,
    status         text        COLLATE "C" NOT NULL CHECK (status IN ('pending', 'received', 'failed')),
    billing_period text,
    transaction_id text        COLLATE "C",
    reason         text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payments_by_company ON public.payments (company_id);
COMMENT ON TABLE public.payments IS 'Payments as they were announced, received or failed. Kept when a company is purged.';
COMMENT ON COLUMN public.payments.amount_minor IS 'In minor units of the currency; null: not known yet.';
COMMENT ON COLUMN public.payments.transaction_id IS 'What it pays, in billing_transactions; null: not known.';
COMMENT ON COLUMN public.payments.reason IS 'Why it failed.';

CREATE TABLE public.subscription_events (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id text        COLLATE "C" NOT NULL,
    event      text        COLLATE "C" NOT NULL,
    event_time timestamptz NOT NULL,
    data       jsonb,
    source     text        COLLATE "C",
    event_id   text        COLLATE "C"
);
CREATE INDEX subscription_events_by_company ON public.subscription_events (company_id, event_time);
COMMENT ON TABLE public.subscription_events IS 'The history of a subscription, for people and for analyses.';
COMMENT ON COLUMN public.subscription_events.event_id IS 'The event that made it so, with source.';

CREATE TABLE public.audit_log (
    company_id    text        COLLATE "C" NOT NULL,
    seq           bigint      NOT NULL CHECK (seq > 0),
    event_source  text        COLLATE "C",
    event_id      text        COLLATE "C",
    event_type    text        COLLATE "C",
    action        text        COLLATE "C" NOT NULL,
    occurred_at   timestamptz NOT NULL,
    details       text        NOT NULL,
    previous_hash text        COLLATE "C" NOT NULL,
    hash          text        COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, seq)
);
COMMENT ON TABLE public.audit_log IS
    'What was done to a company: one chain of hashes a company, so that a changed or removed row is noticed. Rows are only added.';
COMMENT ON COLUMN public.audit_log.seq IS 'Place in the chain of the company, from 1, without gaps.';
COMMENT ON COLUMN public.audit_log.details IS 'JSON, byte for byte as it was hashed.';
COMMENT ON COLUMN public.audit_log.previous_hash IS 'hash of the row before.';

-- +goose StatementBegin
CREATE FUNCTION public.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'public.% is only added to: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION public.refuse_change() FROM PUBLIC;
CREATE TRIGGER only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON public.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TABLE public.data_cleanup_log (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id     text        COLLATE "C" NOT NULL,
    retention_days integer,
    deleted_rows   bigint      NOT NULL,
    cleanup_date   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX data_cleanup_log_by_company ON public.data_cleanup_log (company_id, cleanup_date);
COMMENT ON TABLE public.data_cleanup_log IS 'Every run of cleanup_old_data_by_tier.';
COMMENT ON COLUMN public.data_cleanup_log.retention_days IS 'How long the tier keeps closed positions; null: no subscription, so nothing was deleted.';
