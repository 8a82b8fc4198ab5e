-- A template: the rows of a topic ($1), partition ($2) and range of offsets ($3 to $4, exclusive), reduced to hashes.
SELECT
    toInt64(_offset) AS offset,
    {{template "identity.sql"}} AS identity,
    {{template "signed.sql"}} AS content
FROM usage_tracking
WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND _offset < $4
