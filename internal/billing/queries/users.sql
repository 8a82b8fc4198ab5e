-- The users of whom a company ($1) has usage rows.
SELECT DISTINCT toString(user_id) AS user FROM usage_tracking WHERE company_id = $1
