-- +goose Up

-- Requests to take usage back whose usage is not looked up yet. The request itself is in the inbox, held. It waits alone: nothing of its
-- company queues behind it.
CREATE TABLE public.void_requests (
    source     text        COLLATE "C" NOT NULL,
    event_id   text        COLLATE "C" NOT NULL,
    seq        bigint      GENERATED ALWAYS AS IDENTITY,
    company_id text        COLLATE "C" NOT NULL,
    void_id    text        COLLATE "C" NOT NULL,
    effect_at  timestamptz NOT NULL,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    tries      integer     NOT NULL DEFAULT 0 CHECK (tries >= 0),
    next_try   timestamptz NOT NULL DEFAULT clock_timestamp(),
    why        text,
    PRIMARY KEY (source, event_id)
);
CREATE INDEX void_requests_by_time ON public.void_requests (next_try);
CREATE INDEX void_requests_by_usage ON public.void_requests (company_id, void_id, seq);
COMMENT ON TABLE public.void_requests IS
    'Requests to take usage back that wait until their usage is looked up in ClickHouse. A row goes with the decision.';
COMMENT ON COLUMN public.void_requests.source IS 'With event_id the identity of the request, whose row in the inbox is held.';
COMMENT ON COLUMN public.void_requests.seq IS 'The order in which requests for the same usage are decided.';
COMMENT ON COLUMN public.void_requests.void_id IS 'The id of the void that is asked for, which follows from the usage.';
COMMENT ON COLUMN public.void_requests.effect_at IS 'When the effect happens, whenever it is decided.';
COMMENT ON COLUMN public.void_requests.tries IS 'How often the usage was looked up in vain; the time between two tries grows with it.';
COMMENT ON COLUMN public.void_requests.why IS 'What the request waits for; null: its turn.';

-- Usage that is taken back. One row a usage: a second request is refused.
CREATE TABLE public.usage_voids (
    company_id      text        COLLATE "C" NOT NULL,
    void_id         text        COLLATE "C" NOT NULL,
    usage_source    text        COLLATE "C" NOT NULL,
    usage_id        text        COLLATE "C" NOT NULL,
    usage_timestamp timestamptz NOT NULL,
    request_source  text        COLLATE "C" NOT NULL,
    request_id      text        COLLATE "C" NOT NULL,
    voided_at       timestamptz NOT NULL,
    PRIMARY KEY (company_id, void_id)
);
COMMENT ON TABLE public.usage_voids IS
    'Usage events that are taken back. The void event itself is in the result of the request, in the inbox. Rows go when the company is purged.';
COMMENT ON COLUMN public.usage_voids.void_id IS 'The id of usage.voided.v1, which follows from usage_source, usage_id and usage_timestamp.';
COMMENT ON COLUMN public.usage_voids.request_source IS 'With request_id the identity of the request, in the inbox.';
COMMENT ON COLUMN public.usage_voids.voided_at IS 'The time of the effect, not that of the clock.';

COMMENT ON COLUMN public.inbox.state IS
    'waiting: for its company to be registered, or to go on; held: for its usage to be looked up (see void_requests), for a later version of the service, or, with a fault, for a person; done: applied; rejected: refused by a rule.';
