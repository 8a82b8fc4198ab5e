-- Whether a time ($1, in milliseconds) has passed by the server's clock, and how many statements run whose comment begins with $2.
SELECT
    now64(3) > fromUnixTimestamp64Milli(toInt64($1), 'UTC'),
    (SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], $2))
