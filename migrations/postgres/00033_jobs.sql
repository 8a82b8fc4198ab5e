-- +goose Up

-- +goose StatementBegin
-- The clock of the schedule. Nothing of it compares with another one, so a test can set it.
CREATE FUNCTION public.job_clock() RETURNS timestamptz LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT statement_timestamp() $$;
-- +goose StatementEnd
COMMENT ON FUNCTION public.job_clock() IS 'The clock of the schedule: the time of the statement.';

-- The schedule: one row for each job. It is what a process locks that plans slots of the job, or takes one.
CREATE TABLE public.jobs (
    job        text        COLLATE "C" PRIMARY KEY CHECK (job ~ '^[a-z0-9_-]{1,50}$'),
    every      text        COLLATE "C" NOT NULL CHECK (every IN ('hour', 'day', 'week', 'month')),
    first_seen timestamptz NOT NULL,
    planned_to timestamptz NOT NULL,
    missed     bigint      NOT NULL DEFAULT 0 CHECK (missed >= 0),
    skipped    bigint      NOT NULL DEFAULT 0 CHECK (skipped >= 0)
);
COMMENT ON TABLE public.jobs IS 'Jobs that are due at the begin of an hour, day, week or month in UTC.';
COMMENT ON COLUMN public.jobs.every IS 'What a slot stands for: hour, day, week (from Monday) or month, in UTC.';
COMMENT ON COLUMN public.jobs.first_seen IS 'When a process knew the job first. Slots before that are none of the schedule''s.';
COMMENT ON COLUMN public.jobs.planned_to IS 'The last slot about which was decided. It never goes back, whatever the clock does.';
COMMENT ON COLUMN public.jobs.missed IS 'How many slots came while no process planned, and are not made up for by the job''s rule. They have no row in job_slots.';
COMMENT ON COLUMN public.jobs.skipped IS 'How many slots were left out because the one before them was still at work, or had not begun when the next one came.';

ALTER TABLE public.job_slots
    DROP CONSTRAINT job_slots_state_check,
    DROP CONSTRAINT job_slots_check1,
    ALTER COLUMN started_at DROP NOT NULL,
    ALTER COLUMN lease_until DROP NOT NULL,
    ADD COLUMN attempts     integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    ADD COLUMN next_at      timestamptz,
    ADD COLUMN not_before   timestamptz,
    ADD COLUMN owner        text        NOT NULL DEFAULT '',
    ADD COLUMN error        text        NOT NULL DEFAULT '',
    ADD COLUMN asked_by     text        NOT NULL DEFAULT '',
    ADD COLUMN published_at timestamptz,
    ADD CHECK (state IN ('due', 'queued', 'running', 'done', 'failed', 'skipped')),
    ADD CHECK ((state IN ('due', 'queued', 'running')) = (finished_at IS NULL)),
    ADD CHECK (state <> 'running' OR lease_until IS NOT NULL AND started_at IS NOT NULL);
CREATE INDEX job_slots_open ON public.job_slots (job, slot) WHERE state IN ('due', 'queued', 'running');
CREATE INDEX job_slots_unpublished ON public.job_slots (job, slot) WHERE state = 'done' AND published_at IS NULL AND attempts > 0;
COMMENT ON TABLE public.job_slots IS
    'Every time a job was due and what came of it: the inbox of maintenance.events. Old rows are removed by the service. The job verify has no events, and none of the columns from attempts on.';
COMMENT ON COLUMN public.job_slots.slot IS 'When it was due: the begin of the hour, day, week or month; of verify a multiple of its interval.';
COMMENT ON COLUMN public.job_slots.state IS
    'due: its event is to be in the log; queued: the event was read; running; done; failed: it could not be done before it was too late; skipped: the one before it was still at work, or the next one came before it had begun.';
COMMENT ON COLUMN public.job_slots.attempts IS 'How often a process has taken it. A process that names an older number can''t change the row.';
COMMENT ON COLUMN public.job_slots.next_at IS
    'When it is turned to next: its event is published again (due, done without published_at), or it is tried again (queued).';
COMMENT ON COLUMN public.job_slots.not_before IS 'Before when its work can''t be done, as the job said last.';
COMMENT ON COLUMN public.job_slots.owner IS 'The process that has taken it last: host and process id.';
COMMENT ON COLUMN public.job_slots.error IS 'Why the last attempt failed, or what it waits for.';
COMMENT ON COLUMN public.job_slots.asked_by IS 'Who asked for it by hand; empty: the schedule.';
COMMENT ON COLUMN public.job_slots.published_at IS 'When it was noted that the event of what came of it is in the log.';
