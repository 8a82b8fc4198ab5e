package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// What a company, its users and its subscription need at least. Price, period and limits are copied from the catalogue
// where nothing else is given.
const (
	insertCompanies = `
		INSERT INTO companies (company_id, name, billing_email)
		SELECT id, id, 'billing@' || id || '.example' FROM unnest($1::text[]) AS id`
	insertUsers = `
		INSERT INTO user_directory (user_id, company_id, email)
		SELECT id, $2, id || '@' || $2 || '.example' FROM unnest($1::text[]) AS id`
	insertSubscription = `
		INSERT INTO subscriptions (company_id, tier, limits)
		SELECT $1, $2, (SELECT limits || jsonb_build_object('daily_api_calls', $3::bigint) FROM subscription_tiers WHERE tier = $2 AND $3 IS NOT NULL)`
)

// makeKnown writes the companies that the service is to know into Postgres.
func (d *demo) makeKnown(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, d.stack.Postgres.DSN())
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var batch pgx.Batch
	var companies []string
	for _, t := range d.quotas.tenants {
		companies = append(companies, t.company)
	}
	batch.Queue(insertCompanies, companies)
	for _, t := range d.quotas.tenants {
		var limit *int64
		if t.own {
			limit = &t.limit
		}
		batch.Queue(insertUsers, t.users, t.company)
		batch.Queue(insertSubscription, t.company, t.tier, limit)
	}
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("make %d companies known: %w", len(companies), err)
	}
	return nil
}
