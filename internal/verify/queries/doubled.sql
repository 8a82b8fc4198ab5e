-- A template: the identities with several rows, of one of some passes over the table.
SELECT {{template "identity.sql"}} AS identity
FROM usage_tracking
WHERE identity % {{.Passes}} = {{.Pass}}
GROUP BY identity
HAVING count() > 1
