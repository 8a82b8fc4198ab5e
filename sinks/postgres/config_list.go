package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
)

var (
	//go:embed queries/config_result.sql
	configResultSQL string
	//go:embed queries/configs.sql
	configsSQL string
	//go:embed queries/configs_now.sql
	configsNowSQL string
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
	return collect(ctx, s, "list configurations", pgx.RowToStructByName[CompanyConfig], configsSQL, after, limit, begun)
}

// PurgedVersion is the version of what a purged company has for a configuration: nothing.
const PurgedVersion = -1

// A ConfigNow is what a company has for a configuration at some moment.
type ConfigNow struct {
	CompanyID string
	Config    json.RawMessage
	Version   int64 // PurgedVersion: there is none any more
	UpdatedAt time.Time
}

// ConfigsNow returns the configurations that some companies have now, where their versions are not those which the caller has of them. A
// company that has no configuration, and is not purged, is left out.
func (s *Store) ConfigsNow(ctx context.Context, have map[string]int64) ([]ConfigNow, error) {
	companies, versions := make([]string, 0, len(have)), make([]int64, 0, len(have))
	for _, company := range slices.Sorted(maps.Keys(have)) {
		companies, versions = append(companies, company), append(versions, have[company])
	}
	return collect(ctx, s, "read configurations", pgx.RowToStructByName[ConfigNow], configsNowSQL, companies, versions)
}

// ConfigResult returns the result of the event that made a configuration, as it was published; nil if there is none, or it is not known any
// more.
func (s *Store) ConfigResult(ctx context.Context, c *ConfigNow) (*events.Envelope, error) {
	found, err := collect(ctx, s, "look for the event of a configuration", pgx.RowToStructByName[inboxText], configResultSQL, c.CompanyID, c.Version, c.Config)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	one, err := readApplied(&events.Envelope{Source: found[0].Source, ID: found[0].EventID}, found[0].Text)
	if err != nil {
		return nil, nil //nolint:nilerr // a result that can't be read can't be published; that is said where it is met
	}
	for _, r := range one.Results {
		if r.Topic == events.TopicCompanyConfig {
			return r.Event, nil
		}
	}
	return nil, nil
}

// Purged returns those of some companies that are purged, for half a minute or longer, and of which everything was published before
// a time, as for Configs.
func (s *Store) Purged(ctx context.Context, companies []string, begun time.Time) ([]string, error) {
	if len(companies) == 0 {
		return nil, nil
	}
	return collect(ctx, s, "list companies that are purged", pgx.RowTo[string], purgedSQL, companies, begun)
}

// ConfigsNow is Store.ConfigsNow.
func (t *Tenants) ConfigsNow(ctx context.Context, have map[string]int64) ([]ConfigNow, error) {
	return t.store.ConfigsNow(ctx, have)
}

// ConfigResult is Store.ConfigResult.
func (t *Tenants) ConfigResult(ctx context.Context, c *ConfigNow) (*events.Envelope, error) {
	return t.store.ConfigResult(ctx, c)
}
