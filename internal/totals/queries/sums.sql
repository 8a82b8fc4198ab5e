-- A template: adds up rows as a view does. Its columns: the key and the sums, as texts.
SELECT
    [{{each .Keys ", " "toString({name})"}}] AS k,
    [{{each .Sums ", " "toString(s{i})"}}] AS s
FROM (
    SELECT {{each .Keys ", " "{named}"}}, {{each .Sums ", " "{row} AS s{i}"}}
    FROM usage_tracking
    WHERE {{.Rows}}
    GROUP BY {{each .Keys ", " "{name}"}}
)
