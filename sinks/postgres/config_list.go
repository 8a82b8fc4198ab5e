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
	// Quiet reports that it has not been written for half a minute: what there is to publish of it was published since.
	Quiet bool
}

// Configs returns up to limit configurations of companies that are not purged, those behind a company, in the order of their ids.
func (s *Store) Configs(ctx context.Context, after string, limit int) ([]CompanyConfig, error) {
	return collect(ctx, s, "list configurations", pgx.RowToStructByName[CompanyConfig], configsSQL, after, limit)
}

// Purged returns those of some companies that are purged, for half a minute or longer: what there was to publish of that was
// published since.
func (s *Store) Purged(ctx context.Context, companies []string) ([]string, error) {
	if len(companies) == 0 {
		return nil, nil
	}
	return collect(ctx, s, "list companies that are purged", pgx.RowTo[string], purgedSQL, companies)
}
