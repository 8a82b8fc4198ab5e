-- Makes $2 the number of partitions that a topic ($1) must have.
INSERT INTO public.topic_partitions (topic, partitions)
VALUES ($1, $2)
ON CONFLICT (topic) DO UPDATE SET partitions = EXCLUDED.partitions, seen_at = now()
