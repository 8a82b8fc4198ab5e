package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
)

// A CompanyConfig is the configuration of a company as it is in company_config.
type CompanyConfig struct {
	CompanyID string
	Config    json.RawMessage
	Version   int64
	UpdatedAt time.Time
	// Quiet reports that it has not been written for half a minute: what there is to publish of it was published since.
	Quiet bool
}

// Configs returns up to limit configurations of companies that are not purged, those behind a company, in the order of their ids.
func (s *Store) Configs(ctx context.Context, after string, limit int) ([]CompanyConfig, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `SELECT f.company_id, f.config, f.version, f.updated_at, f.updated_at < clock_timestamp() - interval '30 seconds'
		FROM public.company_config AS f JOIN public.companies AS c ON c.company_id = f.company_id
		WHERE c.status <> 'purged' AND f.company_id > $1 ORDER BY f.company_id LIMIT $2`, after, limit)
	if err != nil {
		return nil, explain("list configurations", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c CompanyConfig, err error) {
		return c, row.Scan(&c.CompanyID, &c.Config, &c.Version, &c.UpdatedAt, &c.Quiet)
	})
	if err != nil {
		return nil, explain("list configurations", err)
	}
	return found, nil
}

// Purged returns those of some companies that are purged, for half a minute or longer: what there was to publish of that was
// published since.
func (s *Store) Purged(ctx context.Context, companies []string) ([]string, error) {
	if len(companies) == 0 {
		return nil, nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `SELECT company_id FROM public.companies WHERE company_id = ANY ($1) AND status = 'purged'
		AND updated_at < clock_timestamp() - interval '30 seconds' ORDER BY company_id`, companies)
	if err != nil {
		return nil, explain("list companies that are purged", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, explain("list companies that are purged", err)
	}
	return found, nil
}
