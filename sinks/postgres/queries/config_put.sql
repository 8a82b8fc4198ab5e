-- Writes the configuration ($2) of a company ($1). What comes back is the configuration as it will be read again.
INSERT INTO public.company_config AS c (company_id, config)
VALUES ($1, $2)
ON CONFLICT (company_id) DO UPDATE SET config = EXCLUDED.config
RETURNING version, config
