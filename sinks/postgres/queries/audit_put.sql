-- Adds a record to the audit log of a company.
INSERT INTO public.audit_log (company_id, seq, event_source, event_id, event_type, action, occurred_at, details, previous_hash, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
