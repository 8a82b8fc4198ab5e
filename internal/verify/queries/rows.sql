-- A template: the rows of a topic ($1), partition ($2) and range of offsets ($3 to $4, exclusive), reduced to hashes. One
-- whose sign was turned has the content of no event.
SELECT
    toInt64(_offset) AS offset,
    {{template "identity.sql"}} AS identity,
    if(sign = 1, {{template "content.sql"}}, 0) AS content
FROM usage_tracking
WHERE _topic = $1 AND _partition = $2 AND _offset >= $3 AND _offset < $4
