-- A template: those of some keys of a store whose newest claim is a given one, with what it claims; none after the deadline.
SELECT key, argMax((claim, difference, last_activity), (number, claim)) AS newest
FROM usage_corrections
WHERE store = ? AND step = 'claimed' AND key IN ?
GROUP BY key
HAVING newest.1 = ? AND {{.}}
