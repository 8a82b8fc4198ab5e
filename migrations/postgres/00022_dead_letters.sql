-- +goose Up

-- What was done about dead letters. The letters themselves are in Kafka, where none can be taken out; one without a row here is open.
CREATE TABLE public.dead_letters (
    origin_group     text        COLLATE "C" NOT NULL,
    origin_topic     text        COLLATE "C" NOT NULL,
    origin_partition integer     NOT NULL CHECK (origin_partition >= 0),
    origin_offset    bigint      NOT NULL CHECK (origin_offset >= 0),
    origin           text        COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        origin_group || '/' || origin_topic || '/' || origin_partition::text || '/' || origin_offset::text) STORED,
    reason           text        COLLATE "C" NOT NULL,
    state            text        COLLATE "C" NOT NULL CHECK (state IN ('open', 'redriven', 'dropped', 'settled')),
    changed_by       text        NOT NULL,
    why              text        NOT NULL,
    changed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    task_id          text        COLLATE "C",
    company_id       text        COLLATE "C",
    event_source     text        COLLATE "C",
    event_id         text        COLLATE "C",
    PRIMARY KEY (origin_topic, origin_partition, origin_offset, origin_group)
);
CREATE INDEX dead_letters_by_company ON public.dead_letters (company_id, changed_at) WHERE company_id IS NOT NULL;
CREATE INDEX dead_letters_by_task ON public.dead_letters (task_id) WHERE task_id IS NOT NULL;
COMMENT ON TABLE public.dead_letters IS
    'What was done about dead letters, one row a letter. The letters are in the dead letter topics; one without a row is open.';
COMMENT ON COLUMN public.dead_letters.origin IS
    'The identity of the letter as the command line writes it: the consumer group that gave up, and the topic, partition and offset of the record it gave up on.';
COMMENT ON COLUMN public.dead_letters.reason IS 'The dlq-reason of the letter.';
COMMENT ON COLUMN public.dead_letters.state IS
    'open: to be dealt with, as if there were no row; redriven: published again; dropped: nothing will be done; settled: its event had its effect already.';
COMMENT ON COLUMN public.dead_letters.changed_by IS 'Who brought it to this state, as the command line was told or as the operating system says.';
COMMENT ON COLUMN public.dead_letters.why IS 'Of a dropped letter, the reason that was given; otherwise what was found.';
COMMENT ON COLUMN public.dead_letters.task_id IS 'The task that redrove it; null: none did.';
COMMENT ON COLUMN public.dead_letters.company_id IS 'The company the letter''s event names, where that can be read.';
COMMENT ON COLUMN public.dead_letters.event_id IS 'The id of the letter''s event, with event_source, where that can be read.';
