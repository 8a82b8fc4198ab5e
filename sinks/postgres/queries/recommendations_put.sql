-- Writes what was found about a company ($1) at the end of a month ($2): an array of recommendations ($3). What is there stays. A company that
-- was purged meanwhile gets none: its row is kept from that until the end of the transaction.
INSERT INTO public.recommendations (recommendation_id, company_id, user_id, kind, month, tier, score, flagged, idle, detail)
SELECT r.recommendation_id, c.company_id, r.user_id, r.kind, $2, r.tier, r.score_hundredths / 100.0, r.flagged, r.idle, r.detail
FROM (SELECT company_id FROM public.companies WHERE company_id = $1 AND status <> 'purged' FOR SHARE) AS c,
    jsonb_to_recordset($3::jsonb) AS r (recommendation_id uuid, user_id text, kind text, tier text, score_hundredths bigint, flagged boolean, idle boolean, detail jsonb)
ON CONFLICT DO NOTHING
