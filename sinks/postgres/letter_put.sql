-- Brings dead letters to a state ($6), unless they were brought to one before: only open letters change. The arrays belong together:
-- groups, topics, partitions, offsets, reasons ($1 to $5), and companies, sources and ids of events ($10 to $12), empty where unknown.
-- Returns the place in the arrays, from 1, of each letter that changed.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::text[], $10::text[], $11::text[], $12::text[])
        WITH ORDINALITY AS g (origin_group, origin_topic, origin_partition, origin_offset, reason, company_id, event_source, event_id, place)
), put AS (
    INSERT INTO public.dead_letters AS d (origin_group, origin_topic, origin_partition, origin_offset, reason, state, changed_by, why, task_id,
        company_id, event_source, event_id)
    SELECT g.origin_group, g.origin_topic, g.origin_partition, g.origin_offset, g.reason, $6, $7, $8, nullif($9, ''),
        nullif(g.company_id, ''), nullif(g.event_source, ''), nullif(g.event_id, '')
    FROM given AS g
    -- In one order, so that two that change the same letters wait and do not deadlock.
    ORDER BY g.origin_topic, g.origin_partition, g.origin_offset, g.origin_group
    ON CONFLICT (origin_topic, origin_partition, origin_offset, origin_group) DO UPDATE SET
        reason = EXCLUDED.reason, state = EXCLUDED.state, changed_by = EXCLUDED.changed_by, why = EXCLUDED.why, task_id = EXCLUDED.task_id,
        changed_at = clock_timestamp(), company_id = EXCLUDED.company_id, event_source = EXCLUDED.event_source, event_id = EXCLUDED.event_id
    WHERE d.state = 'open'
    RETURNING d.origin_group, d.origin_topic, d.origin_partition, d.origin_offset
)
SELECT g.place::integer FROM put AS p
JOIN given AS g USING (origin_group, origin_topic, origin_partition, origin_offset)
ORDER BY g.place;
