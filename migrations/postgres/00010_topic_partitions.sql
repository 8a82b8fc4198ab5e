-- +goose Up

CREATE TABLE public.topic_partitions (
    topic      text        COLLATE "C" PRIMARY KEY,
    partitions integer     NOT NULL CHECK (partitions > 0),
    seen_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE public.topic_partitions IS
    'How many partitions the topics of company and subscription events had when they were first consumed. With another number a company''s later events are in another partition than its earlier ones, and their order is lost; so the consumers stop until somebody accepts it here.';
