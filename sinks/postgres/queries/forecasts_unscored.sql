-- The months up to one ($1) for which there is a forecast without an actual value.
SELECT DISTINCT month FROM public.forecasts WHERE month <= $1 AND actual_minor IS NULL
