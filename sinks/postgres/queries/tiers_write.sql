-- Makes subscription_tiers equal to a catalogue ($1: its rows as a JSON array) and returns the tiers that were not.
WITH wanted AS (
    SELECT * FROM jsonb_populate_recordset(NULL::public.subscription_tiers, $1)
), removed AS (
    DELETE FROM public.subscription_tiers WHERE tier NOT IN (SELECT tier FROM wanted) RETURNING tier
), written AS (
    INSERT INTO public.subscription_tiers AS t (tier, catalogue_order, price_minor, currency, limits, benefits, support_level,
        backup_every, backup_keep, statement_timeout, p95_target, thresholds)
    SELECT tier, catalogue_order, price_minor, currency, limits, benefits, support_level,
        backup_every, backup_keep, statement_timeout, p95_target, thresholds
    FROM wanted
    ON CONFLICT (tier) DO UPDATE SET (catalogue_order, price_minor, currency, limits, benefits, support_level,
        backup_every, backup_keep, statement_timeout, p95_target, thresholds, updated_at)
        = (EXCLUDED.catalogue_order, EXCLUDED.price_minor, EXCLUDED.currency, EXCLUDED.limits, EXCLUDED.benefits, EXCLUDED.support_level,
        EXCLUDED.backup_every, EXCLUDED.backup_keep, EXCLUDED.statement_timeout, EXCLUDED.p95_target, EXCLUDED.thresholds, now())
    WHERE to_jsonb(t) - 'updated_at' <> to_jsonb(EXCLUDED) - 'updated_at'
    RETURNING tier
)
SELECT tier FROM removed UNION ALL SELECT tier FROM written ORDER BY tier
