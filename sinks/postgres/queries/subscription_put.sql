-- Writes the subscription of a company.
INSERT INTO public.subscriptions AS s (company_id, tier, status, period_start, period_end, period_months, price_minor, currency,
    pending_tier, pending_at, cancel_at_period_end, grace_until, renewal_until, next_period_start, next_period_end, next_renewal,
    payment_failed, expired_term, previous_tier, anchor_day, limits, benefits, event_partition, closed_at, closed_in)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), $10, $11, $12, $13, $14, $15, $16, $17, $18, nullif($19, ''), nullif($20::int, 0),
    $21, $22, $23, $24, coalesce($25::integer[], '{}'))
ON CONFLICT (company_id) DO UPDATE SET (tier, status, period_start, period_end, period_months, price_minor, currency,
    pending_tier, pending_at, cancel_at_period_end, grace_until, renewal_until, next_period_start, next_period_end, next_renewal,
    payment_failed, expired_term, previous_tier, anchor_day, limits, benefits, event_partition, closed_at, closed_in)
    = (EXCLUDED.tier, EXCLUDED.status, EXCLUDED.period_start, EXCLUDED.period_end, EXCLUDED.period_months, EXCLUDED.price_minor,
    EXCLUDED.currency, EXCLUDED.pending_tier, EXCLUDED.pending_at, EXCLUDED.cancel_at_period_end, EXCLUDED.grace_until,
    EXCLUDED.renewal_until, EXCLUDED.next_period_start, EXCLUDED.next_period_end, EXCLUDED.next_renewal, EXCLUDED.payment_failed,
    EXCLUDED.expired_term, EXCLUDED.previous_tier, EXCLUDED.anchor_day, EXCLUDED.limits, EXCLUDED.benefits, EXCLUDED.event_partition, EXCLUDED.closed_at, EXCLUDED.closed_in)
