-- Makes a list ($2) the overrides of a company ($1). $3 is the partition of company.events that says so, which also ends them.
WITH wanted AS (
    SELECT w.limit_name, w.value, w.reason, w.set_at, w.expires_at
    FROM jsonb_to_recordset($2::jsonb) AS w (limit_name text, value jsonb, reason text, set_at timestamptz, expires_at timestamptz)
), gone AS (
    DELETE FROM public.limit_overrides AS o
    WHERE o.company_id = $1 AND NOT EXISTS (SELECT FROM wanted AS w WHERE w.limit_name = o.limit_name)
)
INSERT INTO public.limit_overrides AS o (company_id, limit_name, value, reason, set_at, expires_at, event_partition)
SELECT $1, w.limit_name, w.value, w.reason, w.set_at, w.expires_at, $3::integer FROM wanted AS w
ON CONFLICT (company_id, limit_name) DO UPDATE SET (value, reason, set_at, expires_at, event_partition)
    = (EXCLUDED.value, EXCLUDED.reason, EXCLUDED.set_at, EXCLUDED.expires_at, EXCLUDED.event_partition)
    WHERE (o.value, o.reason, o.set_at, o.expires_at) IS DISTINCT FROM (EXCLUDED.value, EXCLUDED.reason, EXCLUDED.set_at, EXCLUDED.expires_at)
