-- A template: the identities with several rows, of one of some passes over the table. Recent is a condition on its rows.
SELECT {{template "identity.sql"}} AS identity
FROM usage_tracking
WHERE identity % {{.Passes}} = {{.Pass}} AND {{.Recent}}
GROUP BY identity
HAVING count() > 1
