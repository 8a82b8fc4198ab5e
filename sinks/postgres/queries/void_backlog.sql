-- How many requests to take usage back wait for their usage to be looked up, how long the oldest of them has, and what that waits for.
SELECT count(*) AS waiting, coalesce(clock_timestamp() - min(since), '0') AS oldest,
    coalesce((SELECT coalesce(why, '') FROM public.void_requests ORDER BY since LIMIT 1), '') AS why
FROM public.void_requests
