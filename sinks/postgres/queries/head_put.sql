-- Writes what is last of a company ($1): $2 the time of its last effect, $3 and $4 that of the last effect from subscription.events and
-- from company.events (null: it stays), $5 and $6 number and hash of the last record of its audit log.
INSERT INTO public.company_heads AS h (company_id, last_effect_at, subscription_effect_at, company_effect_at, audit_seq, audit_hash)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (company_id) DO UPDATE SET (last_effect_at, subscription_effect_at, company_effect_at, audit_seq, audit_hash)
    = (EXCLUDED.last_effect_at, coalesce(EXCLUDED.subscription_effect_at, h.subscription_effect_at),
    coalesce(EXCLUDED.company_effect_at, h.company_effect_at), EXCLUDED.audit_seq, EXCLUDED.audit_hash)
