-- Shortens leases of some jobs ($1) that are longer than two leases ($2): the clock was set back. A process that lives moves its own on; one that has died
-- is not waited for until the clock is where it was.
UPDATE public.job_slots SET lease_until = public.job_clock() + $2::interval
WHERE job = ANY ($1) AND state = 'running' AND lease_until > public.job_clock() + 2 * $2::interval
