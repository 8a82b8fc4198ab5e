-- The tables of one company. Every name is without a schema: the text is run once a company, with a search path that
-- holds the company's schema alone. What database_service_role is granted here, the company's own role gets as well.

CREATE TABLE users (
    user_id                 text        COLLATE "C" PRIMARY KEY,
    email                   text        COLLATE "C" NOT NULL UNIQUE,
    subscription_tier       text        COLLATE "C" NOT NULL DEFAULT 'free',
    -- active; suspended: beyond the max_users of the tier; removed: gone, and kept because accounts or positions name it.
    subscription_status     text        COLLATE "C" NOT NULL DEFAULT 'active',
    subscription_start_date timestamptz,
    subscription_end_date   timestamptz,
    subscription_limits     jsonb,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    last_activity           timestamptz -- exact to an hour
);
CREATE INDEX users_by_subscription ON users (subscription_tier, subscription_status);
COMMENT ON TABLE users IS 'The company''s users, with what their company''s subscription gives them. Written by tenantflow alone.';

CREATE TABLE mt5_accounts (
    account_id     bigint        PRIMARY KEY,
    user_id        text          COLLATE "C" NOT NULL REFERENCES users,
    account_number text          NOT NULL,
    broker         text,
    account_type   text          CHECK (account_type IN ('demo', 'live')),
    balance        numeric(15,2),
    equity         numeric(15,2),
    margin         numeric(15,2),
    leverage       integer,
    currency       text          NOT NULL DEFAULT 'USD',
    status         text          NOT NULL DEFAULT 'active',
    created_at     timestamptz   NOT NULL DEFAULT now(),
    last_sync      timestamptz
);
CREATE INDEX mt5_accounts_by_user ON mt5_accounts (user_id);
COMMENT ON TABLE mt5_accounts IS 'Trading accounts of the users. Written by other services.';

CREATE TABLE trading_positions (
    position_id    bigserial     PRIMARY KEY,
    user_id        text          COLLATE "C" NOT NULL REFERENCES users,
    mt5_account_id bigint        REFERENCES mt5_accounts,
    symbol         text          NOT NULL,
    position_type  text          CHECK (position_type IN ('buy', 'sell')),
    volume         numeric(10,2) NOT NULL,
    open_price     numeric(10,5) NOT NULL,
    current_price  numeric(10,5),
    stop_loss      numeric(10,5),
    take_profit    numeric(10,5),
    profit_loss    numeric(15,2),
    opened_at      timestamptz   NOT NULL DEFAULT now(),
    closed_at      timestamptz,
    status         text          NOT NULL DEFAULT 'open'
);
CREATE INDEX trading_positions_by_user ON trading_positions (user_id, symbol, status);
CREATE INDEX trading_positions_by_closing ON trading_positions (closed_at) WHERE closed_at IS NOT NULL;
COMMENT ON TABLE trading_positions IS
    'Positions of the users. Written by other services; closed ones are removed when they are older than the tier keeps them.';

GRANT SELECT ON users TO database_service_role;
GRANT SELECT, INSERT, UPDATE, DELETE ON mt5_accounts, trading_positions TO database_service_role;
GRANT USAGE ON SEQUENCE trading_positions_position_id_seq TO database_service_role;
