-- Up to $4 companies whose ids are behind $1, which were there in a period that begins at $2 and ends at $3, in the order of their ids: whether the period is closed for them,
-- and whether they had ended before it. Purged companies are among them: their books and usage are kept.
SELECT
    c.company_id,
    EXISTS (SELECT FROM public.billing_exports AS e
        WHERE e.company_id = c.company_id AND e.billing_period = to_char($2::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM') AND e.state = 'closed') AS closed,
    coalesce(c.closed_at < $2, false) AS ended
FROM public.companies AS c
WHERE c.company_id > $1 AND c.created_at < $3 AND coalesce(c.closed_at >= $2::timestamptz - interval '3 months', true)
ORDER BY c.company_id
LIMIT $4
