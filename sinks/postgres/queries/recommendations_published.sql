-- Notes that recommendations ($1: their ids) are published.
UPDATE public.recommendations SET published_at = clock_timestamp()
WHERE recommendation_id = ANY ($1::text[]::uuid[]) AND flagged AND published_at IS NULL
