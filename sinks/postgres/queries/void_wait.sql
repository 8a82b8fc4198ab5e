-- Lets a request ($1 source, $2 id, $3 company) wait until the usage that it takes back with the void $4 is looked up; $5: when its effect
-- happens. A row is there already if the request was held with a fault.
INSERT INTO public.void_requests (source, event_id, company_id, void_id, effect_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (source, event_id) DO NOTHING
