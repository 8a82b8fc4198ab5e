-- +goose Up

-- Long work that publishes events: replay and redrive. A row outlives the process and the terminal that began it.
CREATE TABLE public.tasks (
    task_id     text        COLLATE "C" PRIMARY KEY,
    kind        text        COLLATE "C" NOT NULL CHECK (kind IN ('replay', 'redrive')),
    topic       text        COLLATE "C" NOT NULL,
    spec        jsonb       NOT NULL CHECK (jsonb_typeof(spec) = 'object'),
    state       text        COLLATE "C" NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'stopping', 'stopped', 'done', 'failed')),
    position    jsonb       NOT NULL DEFAULT '{}',
    counts      jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(counts) = 'object'),
    pending     jsonb,
    lease_until timestamptz,
    owner       text        NOT NULL DEFAULT '',
    fence       bigint      NOT NULL DEFAULT 0,
    message     text        NOT NULL DEFAULT '',
    created_by  text        NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX tasks_active ON public.tasks (topic) WHERE state IN ('running', 'stopping');
CREATE INDEX tasks_by_time ON public.tasks (created_at);
COMMENT ON TABLE public.tasks IS 'Replays and redrives, with how far they are. Rows are kept.';
COMMENT ON COLUMN public.tasks.topic IS 'The topic the task publishes to, with its prefix. One task may be active on it at a time.';
COMMENT ON COLUMN public.tasks.spec IS 'What is to be done. It does not change.';
COMMENT ON COLUMN public.tasks.state IS
    'running; stopping: asked to stop, and its process has not seen it yet; stopped, failed: may be resumed; done.';
COMMENT ON COLUMN public.tasks.position IS 'Up to where records are accounted for in counts. Both change in one statement.';
COMMENT ON COLUMN public.tasks.counts IS 'How many records had which outcome. The outcomes sum to what was read.';
COMMENT ON COLUMN public.tasks.pending IS
    'What was decided about the next records before any of it was published, with the position and the counts that follow. After a crash it is published again and not decided again.';
COMMENT ON COLUMN public.tasks.lease_until IS 'Until when the owner may work on it, by this server''s clock; null: no process does.';
COMMENT ON COLUMN public.tasks.fence IS 'Grows with every owner. A process that names an older one can''t change the row.';
COMMENT ON COLUMN public.tasks.message IS 'What it waits for, why it failed, or what a stop leaves behind.';

-- What a task has decided to publish, so that a second copy of an event in its range is not published, too.
CREATE TABLE public.task_identities (
    task_id  text  COLLATE "C" NOT NULL REFERENCES public.tasks ON DELETE CASCADE,
    identity bytea NOT NULL,
    PRIMARY KEY (task_id, identity)
);
COMMENT ON TABLE public.task_identities IS 'Events that a task has published, until it is done.';
COMMENT ON COLUMN public.task_identities.identity IS 'The first 16 bytes of the SHA-256 of source, line feed, id.';

-- The header replay-effects takes an event out of the quota. So that no producer can do that, it comes with a proof that is made with
-- this key, which never leaves the service.
CREATE TABLE public.replay_key (
    one bool  PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (length(key) = 32)
);
INSERT INTO public.replay_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
COMMENT ON TABLE public.replay_key IS 'The key of the proofs in the header replay-proof. One row.';

-- Which users asked to be erased, without a scan of the inbox.
CREATE INDEX inbox_erasures ON public.inbox (company_id) WHERE type = 'company.user_erasure_requested.v1';
