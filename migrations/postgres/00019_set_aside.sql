-- +goose Up

-- A company that can't go on stands still alone: its events wait in the inbox, and here it says why.
CREATE TABLE public.company_blocks (
    company_id text        COLLATE "C" PRIMARY KEY,
    reason     text        COLLATE "C" NOT NULL CHECK (reason IN ('lock', 'state', 'schema', 'storage', 'slow')),
    detail     text        NOT NULL,
    blocked_by text,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    tries      integer     NOT NULL DEFAULT 1 CHECK (tries > 0),
    next_try   timestamptz NOT NULL
);
CREATE INDEX company_blocks_by_time ON public.company_blocks (next_try);
COMMENT ON TABLE public.company_blocks IS
    'Companies whose events are set aside in the inbox, because one of them can''t be applied now. A row goes when nothing waits any more.';
COMMENT ON COLUMN public.company_blocks.reason IS
    'lock: a row or table of the company is locked; state: its rows in the public tables make no sense together; schema: what is due to it fails in its own schema; storage: Postgres can''t read its tables; slow: an event takes longer than one may.';
COMMENT ON COLUMN public.company_blocks.detail IS 'What Postgres or the service said at the last try.';
COMMENT ON COLUMN public.company_blocks.blocked_by IS 'The sessions that held the lock, as far as Postgres could say; null: not known.';
COMMENT ON COLUMN public.company_blocks.tries IS 'How often it was tried; the time between two tries grows with it.';

ALTER TABLE public.inbox ADD COLUMN fault text;
CREATE INDEX inbox_by_fault ON public.inbox (company_id) WHERE fault IS NOT NULL;
COMMENT ON COLUMN public.inbox.fault IS
    'Why the row was taken out of its company''s way: its event (state held) can''t be read or applied, or its result can''t be read. Null: nothing is wrong.';
COMMENT ON COLUMN public.inbox.state IS
    'waiting: for its company to be registered, or to go on; held: for a later version of the service, or, with a fault, for a person; done: applied; rejected: refused by a rule.';

-- An event that is held keeps nothing that its schema does not name.
UPDATE public.inbox AS i SET event = json_build_object(
    'source', i.source, 'id', i.event_id, 'type', i.type, 'time', i.event -> 'time', 'traceparent', i.event -> 'traceparent',
    'tracestate', i.event -> 'tracestate', 'key', i.company_id, 'partition', i.event -> 'partition',
    'data', json_build_object('company_id', i.company_id, 'user_id', i.event -> 'data' -> 'user_id'))
WHERE i.state = 'held' AND i.type = 'company.user_erasure_requested.v1' AND strpos(i.event::text, '\u0000') = 0;
