-- Writes the subscription of a company.
INSERT INTO public.subscriptions AS s (company_id, tier, status, period_start, period_end, price_minor, currency, pending_tier,
    cancel_at_period_end, grace_until, previous_tier, anchor_day, limits, benefits, event_partition)
VALUES ($1, $2, $3, $4, $5, $6, $7, nullif($8, ''), $9, $10, nullif($11, ''), nullif($12::int, 0), $13, $14, $15)
ON CONFLICT (company_id) DO UPDATE SET (tier, status, period_start, period_end, price_minor, currency, pending_tier,
    cancel_at_period_end, grace_until, previous_tier, anchor_day, limits, benefits, event_partition)
    = (EXCLUDED.tier, EXCLUDED.status, EXCLUDED.period_start, EXCLUDED.period_end, EXCLUDED.price_minor, EXCLUDED.currency,
    EXCLUDED.pending_tier, EXCLUDED.cancel_at_period_end, EXCLUDED.grace_until, EXCLUDED.previous_tier, EXCLUDED.anchor_day,
    EXCLUDED.limits, EXCLUDED.benefits, EXCLUDED.event_partition)
