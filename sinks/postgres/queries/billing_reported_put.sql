-- Notes what was reported of the usage of a company ($1) by now: periods ($2), months of the timestamps ($3), whether mismatched ($4), calls ($5), data points ($6) and
-- attributed revenue ($7) by place in the arrays.
INSERT INTO public.billing_reported AS r (company_id, billing_period, usage_month, mismatched, calls, data_points, attributed_revenue)
SELECT $1, i.period, i.month, i.mismatched, i.calls, i.points, i.revenue::numeric
FROM unnest($2::text[], $3::integer[], $4::boolean[], $5::bigint[], $6::bigint[], $7::text[]) AS i (period, month, mismatched, calls, points, revenue)
ON CONFLICT (company_id, billing_period, usage_month, mismatched) DO UPDATE
SET calls = excluded.calls, data_points = excluded.data_points, attributed_revenue = excluded.attributed_revenue
