-- A template: puts, key by key, what the rows add up to beside what a store holds. Its columns: the key as texts; the sums of the rows, of
-- the store and their difference as texts; the largest timestamps of both; the partitions whose pending insert has a row in the key;
-- those of which it has rows behind what is known; and whether anything differs. A key without rows has no largest timestamp; its sums
-- say whether that is right.
SELECT
    [{{each .Keys ", " "toString({name})"}}] AS k,
    [{{each .Sums ", " "toString(sum_r{i})"}}] AS r,
    [{{each .Sums ", " "toString(sum_s{i})"}}] AS s,
    [{{each .Sums ", " "toString(sum_r{i} - sum_s{i})"}}] AS d,
    toUnixTimestamp64Milli(last_rows) AS l0,
    toUnixTimestamp64Milli(last_store) AS l1,
    pending,
    beyond,
    ({{each .Sums " OR " "sum_r{i} != sum_s{i}"}}{{if .Last}} OR sum_r0 != 0 AND last_rows != last_store{{end}}) AS differs
FROM (
    SELECT
        {{each .Keys ", " "{name}"}},
        {{each .Sums ", " "sum(r{i}) AS sum_r{i}, sum(s{i}) AS sum_s{i}"}},
        max(lr) AS last_rows,
        max(ls) AS last_store,
        groupUniqArrayArray(p) AS pending,
        groupUniqArrayArray(b) AS beyond
    FROM (
        SELECT
            {{each .Keys ", " "{named}"}},
            {{each .Sums ", " "{row} AS r{i}"}},
            {{each .Sums ", " "0 AS s{i}"}},
            max(timestamp) AS lr,
            toDateTime64(0, 3, 'UTC') AS ls,
            groupUniqArrayIf(_partition, {{.Pending}}) AS p,
            groupUniqArrayIf(_partition, {{.Beyond}}) AS b
        FROM usage_tracking
        WHERE {{.Rows}}
        GROUP BY {{each .Keys ", " "{name}"}}
        UNION ALL
        SELECT
            {{each .Keys ", " "{name}"}},
            {{each .Sums ", " "0 AS r{i}"}},
            {{each .Sums ", " "sum({name}) AS s{i}"}},
            toDateTime64(0, 3, 'UTC') AS lr,
            {{if .Last}}max({{.Store}}.last_activity){{else}}toDateTime64(0, 3, 'UTC'){{end}} AS ls,
            CAST([], 'Array(UInt16)') AS p,
            CAST([], 'Array(UInt16)') AS b
        FROM {{.Store}}
        WHERE {{.Stored}}
        GROUP BY {{each .Keys ", " "{name}"}}
    )
    GROUP BY {{each .Keys ", " "{name}"}}
)
