-- The number of partitions that a topic ($1) had at the first call, which is noted: $2. A row that another process inserts at the
-- same time is invisible to this statement, unless it is updated.
WITH known AS (
    SELECT partitions FROM public.topic_partitions WHERE topic = $1
), first AS (
    INSERT INTO public.topic_partitions AS t (topic, partitions) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT (topic) DO UPDATE SET partitions = t.partitions
    RETURNING partitions
)
SELECT partitions FROM known UNION ALL SELECT partitions FROM first
