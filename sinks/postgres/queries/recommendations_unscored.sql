-- The months up to one ($1) of which a recommendation has no outcome.
SELECT DISTINCT month FROM public.recommendations WHERE month <= $1 AND outcome IS NULL
