package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed queries/configs.sql
	configsSQL string
	//go:embed queries/purged.sql
	purgedSQL string
)

// A CompanyConfig is the configuration of a company as it is in company_config.
type CompanyConfig struct {
	CompanyID string
	Config    json.RawMessage
	Version   int64
	UpdatedAt time.Time
	// Quiet reports that it has not been written for half a minute, and that nothing of its company is still to be published, or was since the
	// given time: a process that was killed may have left results behind.
	Quiet bool
}

// Configs returns up to limit configurations of companies that are not purged, those behind a company, in the order of their ids. begun
// is a time by Postgres' clock before which the caller had not read anything of what was published.
func (s *Store) Configs(ctx context.Context, after string, limit int, begun time.Time) ([]CompanyConfig, error) {
	return collect(ctx, s, "list configurations", pgx.RowToStructByName[CompanyConfig], configsSQL, after, limit, begun, nil)
}

// ConfigsOf returns the configurations of those of some companies that have one and are not purged. Quiet says nothing.
func (s *Store) ConfigsOf(ctx context.Context, companies []string) ([]CompanyConfig, error) {
	return collect(ctx, s, "read configurations", pgx.RowToStructByName[CompanyConfig], configsSQL, "", len(companies), time.Time{}, companies)
}

// Purged returns those of some companies that are purged, for half a minute or longer, and of which everything was published before
// a time, as for Configs.
func (s *Store) Purged(ctx context.Context, companies []string, begun time.Time) ([]string, error) {
	if len(companies) == 0 {
		return nil, nil
	}
	return collect(ctx, s, "list companies that are purged", pgx.RowTo[string], purgedSQL, companies, begun)
}
