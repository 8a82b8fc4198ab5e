-- +goose Up

-- The schedule: one row each time a job is due. The process that inserts the row does the work.
CREATE TABLE public.job_slots (
    job         text        COLLATE "C" NOT NULL CHECK (job ~ '^[a-z0-9_-]{1,50}$'),
    slot        timestamptz NOT NULL,
    state       text        COLLATE "C" NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    finished_at timestamptz CHECK (finished_at >= started_at),
    result      jsonb       CHECK (jsonb_typeof(result) = 'object'),
    PRIMARY KEY (job, slot),
    CHECK ((state = 'running') = (finished_at IS NULL))
);
COMMENT ON TABLE public.job_slots IS 'Every time a job was due and what came of it. Old rows are removed by the service.';
COMMENT ON COLUMN public.job_slots.slot IS 'When it was due: a multiple of the job''s interval.';
COMMENT ON COLUMN public.job_slots.state IS 'running; done; failed: it could not be done, or its process has died.';
COMMENT ON COLUMN public.job_slots.lease_until IS 'Until when the process that runs it is taken to live. It keeps moving that on.';
COMMENT ON COLUMN public.job_slots.result IS 'What came of it, in the job''s own form.';
