-- What an export of a company ($1) and a period ($2: YYYY-MM) has of the books: the transactions and payments of the period that are in no export yet, and those of
-- periods that are closed already or, as they lie before the company's registration, may never be; what closed exports have reported of usage, which periods these are, and the last of them. No row: there is no such company.
SELECT
    c.currency,
    c.status,
    c.created_at,
    c.closed_at,
    statement_timestamp() AS now,
    coalesce((SELECT e.export_id FROM public.billing_exports AS e WHERE e.company_id = c.company_id ORDER BY e.seq DESC LIMIT 1), '') AS last_export,
    (SELECT e.as_of FROM public.billing_exports AS e WHERE e.company_id = c.company_id ORDER BY e.seq DESC LIMIT 1) AS last_as_of,
    coalesce((SELECT array_agg(e.billing_period ORDER BY e.billing_period) FROM public.billing_exports AS e
        WHERE e.company_id = c.company_id AND e.state = 'closed'), '{}') AS closed,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('period', r.billing_period, 'month', r.usage_month, 'mismatched', r.mismatched, 'calls', r.calls,
            'data_points', r.data_points, 'attributed', r.attributed_revenue::text))
        FROM public.billing_reported AS r WHERE r.company_id = c.company_id), '[]') AS reported,
    coalesce((
        SELECT jsonb_agg(to_jsonb(t) ORDER BY t.created_at, t.transaction_id)
        FROM (
            SELECT b.transaction_id, b.transaction_type, coalesce(b.old_tier, '') AS old_tier, coalesce(b.new_tier, '') AS new_tier, b.amount_minor, b.currency,
                b.lines, b.period_start, b.period_end, b.created_at,
                to_char(coalesce(b.period_start, b.created_at) AT TIME ZONE 'UTC', 'YYYY-MM') AS month
            FROM public.billing_transactions AS b
            WHERE b.company_id = c.company_id
                AND NOT EXISTS (SELECT FROM public.billing_export_items AS i WHERE i.kind = 'transaction' AND i.item_id = b.transaction_id)
        ) AS t
        WHERE t.month = $2 OR t.month < least($2, to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM')) OR EXISTS (SELECT FROM public.billing_exports AS e
            WHERE e.company_id = c.company_id AND e.billing_period = t.month AND e.state = 'closed')), '[]') AS charges,
    coalesce((
        SELECT jsonb_agg(to_jsonb(t) ORDER BY t.at, t.payment_id)
        FROM (
            SELECT p.payment_id, p.status, p.amount_minor, coalesce(p.currency, '') AS currency, coalesce(p.method, '') AS method,
                coalesce(p.transaction_id, '') AS transaction_id, coalesce(p.paid_at, p.created_at) AS at,
                to_char(coalesce(p.paid_at, p.created_at) AT TIME ZONE 'UTC', 'YYYY-MM') AS month
            FROM public.payments AS p
            WHERE p.company_id = c.company_id AND p.status <> 'pending'
                AND NOT EXISTS (SELECT FROM public.billing_export_items AS i WHERE i.kind = 'payment_' || p.status AND i.item_id = p.payment_id)
        ) AS t
        WHERE t.month = $2 OR t.month < least($2, to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM')) OR EXISTS (SELECT FROM public.billing_exports AS e
            WHERE e.company_id = c.company_id AND e.billing_period = t.month AND e.state = 'closed')), '[]') AS payments
FROM public.companies AS c
WHERE c.company_id = $1
