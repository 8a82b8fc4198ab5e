-- The deadlines of rows that stand beside a row of an insert at the same place, and the number of such places: of a topic ($1), partition
-- ($2) and range of offsets ($3 to $4, exclusive). $5: the deadline of the insert, in milliseconds.
SELECT groupUniqArrayArray(arrayFilter(by -> by != $5, bys)), count()
FROM (
    SELECT groupArray(toUnixTimestamp64Milli(_insert_by)) AS bys FROM usage_tracking
    WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND _offset < $4
    GROUP BY _offset HAVING count() > 1 AND has(bys, $5)
)
