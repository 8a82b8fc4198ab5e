-- +goose Up

-- What was recommended about users, and what came of it.
CREATE TABLE public.recommendations (
    recommendation_id uuid         PRIMARY KEY,
    company_id        text         COLLATE "C" NOT NULL REFERENCES public.companies,
    user_id           text         COLLATE "C" NOT NULL,
    kind              text         COLLATE "C" NOT NULL CHECK (kind IN ('upsell', 'churn')),
    month             text         COLLATE "C" NOT NULL CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    tier              text         COLLATE "C" NOT NULL,
    score             numeric(5,2) NOT NULL CHECK (score BETWEEN 0 AND 100),
    flagged           boolean      NOT NULL,
    idle              boolean,
    detail            jsonb        NOT NULL CHECK (jsonb_typeof(detail) = 'object'),
    outcome           boolean,
    scored_at         timestamptz,
    created_at        timestamptz  NOT NULL DEFAULT clock_timestamp(),
    published_at      timestamptz,
    CHECK ((outcome IS NULL) = (scored_at IS NULL)),
    CHECK ((kind = 'churn') = (idle IS NOT NULL)),
    CHECK (flagged OR kind = 'churn' AND published_at IS NULL)
);
CREATE UNIQUE INDEX recommendations_by_month ON public.recommendations (month, kind, company_id, user_id) INCLUDE (tier, outcome);
CREATE INDEX recommendations_by_company ON public.recommendations (company_id);
CREATE INDEX recommendations_unscored ON public.recommendations (month) WHERE outcome IS NULL;
CREATE INDEX recommendations_unpublished ON public.recommendations (created_at) WHERE flagged AND published_at IS NULL;
COMMENT ON TABLE public.recommendations IS
    'What was found about users at the end of a month, once a user, kind and month, and what came of it. Rows go after three years, and when the company is purged.';
COMMENT ON COLUMN public.recommendations.recommendation_id IS 'The id of the event, too. It follows from kind, company, user and month.';
COMMENT ON COLUMN public.recommendations.month IS 'The UTC month at whose end it was found, as YYYY-MM. What it predicts is about the month behind it.';
COMMENT ON COLUMN public.recommendations.tier IS 'The tier of the company when the row was made.';
COMMENT ON COLUMN public.recommendations.flagged IS
    'true: it is on the list, and published. Of kind churn there is a row of every user who is judged, listed or not.';
COMMENT ON COLUMN public.recommendations.idle IS 'Of kind churn: no call in the last 14 days of the month. What the score is compared with.';
COMMENT ON COLUMN public.recommendations.detail IS 'The data of the event.';
COMMENT ON COLUMN public.recommendations.outcome IS
    'What came of it in the month behind: churn: the user made no call; upsell: the company was upgraded. null: that month is not over.';
COMMENT ON COLUMN public.recommendations.scored_at IS 'When the outcome was found out last. It is looked up again a month later, for usage that came late.';
COMMENT ON COLUMN public.recommendations.published_at IS 'When the event was known to be published; null: it may have to be, again, or the row is not flagged.';

-- What was forecast of companies' charged revenue, and what came of it.
CREATE TABLE public.forecasts (
    company_id     text        COLLATE "C" NOT NULL REFERENCES public.companies,
    made_month     text        COLLATE "C" NOT NULL CHECK (made_month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    month          text        COLLATE "C" NOT NULL CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    currency       text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    value_minor    bigint      NOT NULL CHECK (value_minor BETWEEN low_minor AND high_minor),
    low_minor      bigint      NOT NULL CHECK (low_minor >= 0),
    high_minor     bigint      NOT NULL,
    naive_minor    bigint      NOT NULL,
    steps_minor    bigint      NOT NULL CHECK (steps_minor >= 0),
    history_months integer     NOT NULL CHECK (history_months >= 2),
    actual_minor   bigint,
    scored_at      timestamptz,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (company_id, made_month, month),
    CHECK (month > made_month),
    CHECK ((actual_minor IS NULL) = (scored_at IS NULL))
);
CREATE INDEX forecasts_by_month ON public.forecasts (month);
CREATE INDEX forecasts_unscored ON public.forecasts (month) WHERE actual_minor IS NULL;
COMMENT ON TABLE public.forecasts IS
    'What was forecast of the charged revenue of companies at the end of a month, and what it came to. Rows go after three years.';
COMMENT ON COLUMN public.forecasts.made_month IS 'The last UTC month that the forecast knows, as YYYY-MM.';
COMMENT ON COLUMN public.forecasts.month IS 'The UTC month that it is about, as YYYY-MM.';
COMMENT ON COLUMN public.forecasts.value_minor IS 'The forecast, in minor units of the currency; low_minor and high_minor are the ends of its 80 % interval.';
COMMENT ON COLUMN public.forecasts.naive_minor IS 'The charged revenue of made_month: what the forecast is compared with.';
COMMENT ON COLUMN public.forecasts.steps_minor IS
    'The sum of the absolute differences between months that are as far apart as made_month and month, over the history_months that the forecast is made from: the scale of its error.';
COMMENT ON COLUMN public.forecasts.actual_minor IS 'The charged revenue of the month in that currency; null: the month is not over.';
COMMENT ON COLUMN public.forecasts.scored_at IS 'When actual_minor was found out last. It is looked up again a month later, for charges that came late.';
