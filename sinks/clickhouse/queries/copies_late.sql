-- Places with several rows, one of which carries a deadline of $1 (in milliseconds) or later: by topic and partition the range of their
-- offsets, all of their deadlines but the last of each place, and how many places there are.
SELECT toString(_topic) AS topic, _partition, min(_offset), max(_offset) + 1, groupUniqArrayArray(arrayFilter(by -> by != last, bys)), count()
FROM (
    SELECT _topic, _partition, _offset, groupArray(toUnixTimestamp64Milli(_insert_by)) AS bys, arrayMax(bys) AS last FROM usage_tracking
    WHERE (_topic, _partition, _offset) IN (
        SELECT _topic, _partition, _offset FROM usage_tracking WHERE _insert_by >= fromUnixTimestamp64Milli(toInt64($1), 'UTC')
        GROUP BY _topic, _partition, _offset HAVING count() > 1)
    GROUP BY _topic, _partition, _offset
)
GROUP BY _topic, _partition
