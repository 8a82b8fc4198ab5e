-- Notes of the recommendations for a larger tier of a month ($1) whether their company was upgraded in the month behind it, which lasts from a time
-- ($2) to another one ($3).
UPDATE public.recommendations AS r SET outcome = o.upgraded, scored_at = clock_timestamp()
FROM (
    SELECT c.company_id, EXISTS (SELECT FROM public.subscription_events AS e WHERE e.company_id = c.company_id AND e.event = 'subscription.upgraded'
        AND e.event_time >= $2 AND e.event_time < $3) AS upgraded
    FROM (SELECT DISTINCT company_id FROM public.recommendations WHERE month = $1 AND kind = 'upsell') AS c
) AS o
WHERE r.month = $1 AND r.kind = 'upsell' AND r.company_id = o.company_id AND r.outcome IS DISTINCT FROM o.upgraded
