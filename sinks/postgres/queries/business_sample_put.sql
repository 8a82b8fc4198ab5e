-- Adds samples of queries: the company that each was about ($1), its route ($2), how many microseconds it took ($3) and how many queries it stands for
-- ($4). Of a company that has no subscription none is kept. What is older than 24 hours is removed.
WITH old AS (
    DELETE FROM public.query_samples WHERE sampled_at < statement_timestamp() - interval '24 hours'
)
INSERT INTO public.query_samples (tier, route, took, weight)
SELECT s.tier, v.route, v.took * interval '1 microsecond', v.weight
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::float8[]) AS v (company_id, route, took, weight)
JOIN public.subscriptions AS s ON s.company_id = v.company_id COLLATE "C"
