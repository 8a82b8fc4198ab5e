-- +goose Up

-- Closed billing exports. A row is written once, with its bytes, and never changed but for published_at: what comes to be known of its period
-- afterwards is a correction in the company's next export.
CREATE TABLE public.billing_exports (
    export_id      text        COLLATE "C" PRIMARY KEY,
    seq            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    company_id     text        COLLATE "C" NOT NULL REFERENCES public.companies,
    billing_period text        COLLATE "C" NOT NULL CHECK (billing_period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    revision       integer     NOT NULL DEFAULT 1 CHECK (revision > 0),
    state          text        COLLATE "C" NOT NULL CHECK (state IN ('draft', 'closed')),
    as_of          jsonb       NOT NULL CHECK (jsonb_typeof(as_of) = 'object'),
    checksum       text        COLLATE "C" NOT NULL CHECK (checksum ~ '^[0-9a-f]{64}$'),
    csv_checksum   text        COLLATE "C" NOT NULL CHECK (csv_checksum ~ '^[0-9a-f]{64}$'),
    currency       text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    totals         jsonb       NOT NULL CHECK (jsonb_typeof(totals) = 'object'),
    reconciled     boolean     NOT NULL,
    content_json   bytea       NOT NULL,
    content_csv    bytea       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT statement_timestamp(),
    published_at   timestamptz
);
CREATE UNIQUE INDEX billing_exports_closed ON public.billing_exports (company_id, billing_period) WHERE state = 'closed';
CREATE INDEX billing_exports_unpublished ON public.billing_exports (seq) WHERE published_at IS NULL;
CREATE INDEX billing_exports_by_company ON public.billing_exports (company_id, seq DESC);
COMMENT ON TABLE public.billing_exports IS 'Closed billing exports with their bytes. Rows are added and never changed, but for published_at. Kept when a company is purged.';
COMMENT ON COLUMN public.billing_exports.seq IS 'The order in which the exports of a company were closed.';
COMMENT ON COLUMN public.billing_exports.as_of IS 'The positions in the log and the time up to which the export is complete.';
COMMENT ON COLUMN public.billing_exports.checksum IS 'SHA-256 of content_json.';
COMMENT ON COLUMN public.billing_exports.csv_checksum IS 'SHA-256 of content_csv.';
COMMENT ON COLUMN public.billing_exports.currency IS 'That of the company when the period was closed.';
COMMENT ON COLUMN public.billing_exports.totals IS 'The totals of the export, as in content_json.';
COMMENT ON COLUMN public.billing_exports.reconciled IS 'Whether rows, monthly totals and export agreed when the period was closed.';
COMMENT ON COLUMN public.billing_exports.published_at IS 'When billing.export_ready.v1 was known to be published; null: it may have to be, again.';

-- Which transactions and payments are in an export: each is in one.
CREATE TABLE public.billing_export_items (
    kind      text COLLATE "C" NOT NULL CHECK (kind IN ('transaction', 'payment_received', 'payment_failed')),
    item_id   text COLLATE "C" NOT NULL,
    export_id text COLLATE "C" NOT NULL REFERENCES public.billing_exports,
    PRIMARY KEY (kind, item_id)
);
COMMENT ON TABLE public.billing_export_items IS 'The transactions and payments that closed exports have, each in one of them. A payment that failed and was received later is two items.';
COMMENT ON COLUMN public.billing_export_items.item_id IS 'The transaction_id or payment_id.';

-- What closed exports have reported of a period, their corrections included. What the rows add up to later, less this, is the next correction.
CREATE TABLE public.billing_reported (
    company_id         text          COLLATE "C" NOT NULL REFERENCES public.companies,
    billing_period     text          COLLATE "C" NOT NULL,
    usage_month        integer       NOT NULL,
    mismatched         boolean       NOT NULL,
    calls              bigint        NOT NULL,
    data_points        bigint        NOT NULL,
    attributed_revenue numeric(38,6) NOT NULL,
    PRIMARY KEY (company_id, billing_period, usage_month, mismatched)
);
COMMENT ON TABLE public.billing_reported IS 'What the closed exports of a company have reported of the usage of a period, together.';
COMMENT ON COLUMN public.billing_reported.usage_month IS 'UTC month of the timestamps, as YYYYMM. Rows leave ClickHouse by it, and what has left is not corrected.';
COMMENT ON COLUMN public.billing_reported.mismatched IS 'Usage of users who belonged to another company.';
