-- Gives the period of a company ($1) that begins at $2 the payments that were received for its month ($3) and belong to no period yet.
UPDATE public.payments
SET period_start = $2, updated_at = $4
WHERE company_id = $1 AND period_start IS NULL AND status = 'received' AND billing_period = $3
