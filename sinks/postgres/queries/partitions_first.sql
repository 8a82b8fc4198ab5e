-- The number of partitions that a topic ($1) had at the first call, which is noted: $2.
WITH first AS (
    INSERT INTO public.topic_partitions (topic, partitions) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING partitions
)
SELECT partitions FROM first UNION ALL SELECT partitions FROM public.topic_partitions WHERE topic = $1 LIMIT 1
