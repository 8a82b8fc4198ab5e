-- The tiers that are not in subscription_tiers as they are in a catalogue ($1: its rows as a JSON array).
SELECT coalesce(t.tier, wanted.tier) AS tier
FROM public.subscription_tiers AS t
FULL JOIN jsonb_populate_recordset(NULL::public.subscription_tiers, $1) AS wanted ON wanted.tier = t.tier
WHERE to_jsonb(t) - 'updated_at' IS DISTINCT FROM to_jsonb(wanted) - 'updated_at'
ORDER BY 1
