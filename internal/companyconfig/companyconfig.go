// Package companyconfig keeps the last record of every company on the topic of configurations its newest configuration.
//
// The topic is compacted: the last record of a company stays, whatever its version. A configuration may be published late, by a
// process that was held up between storing and publishing it, or by another one after that process died, and a newer one is in the log
// by then. So who has published configurations looks afterwards what their companies have now, and publishes that behind what is
// older, until nothing is. The last record of a company is then the newest: the one who published it has read, behind it, that there
// is none newer; or is killed before it could, and then another process publishes it again and looks, because that it was published
// is noted after the look.
//
// What this rests on: a version is stored before it is published, and who begins to publish also looks, for some seconds even when
// it is stopped meanwhile. Two things can still leave an older one behind: a publisher that is killed between a late publication and
// its look, after another process has published and noted the same; and a broker that appends a record after its publisher has
// given up waiting. Readers that ignore versions which are not higher are right even then, and verify finds it.
package companyconfig

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// Versions that are none.
const (
	Tombstone int64 = postgres.PurgedVersion // a record without a value
	None      int64 = 0                      // nothing was published, or what it was is not known
)

// A Source has the configurations that companies have: *postgres.Store.
type Source interface {
	ConfigsNow(ctx context.Context, have map[string]int64) ([]postgres.ConfigNow, error)
	ConfigResult(ctx context.Context, c *postgres.ConfigNow) (*events.Envelope, error)
}

// Published returns the versions of the configurations among results, by company, of each the last. topic has its prefix.
func Published(results []kafka.Result, topic string) map[string]int64 {
	versions := map[string]int64{}
	for _, r := range results {
		if r.Topic != topic {
			continue
		}
		if r.Event == nil {
			versions[r.Key] = Tombstone
			continue
		}
		var data struct {
			Version int64 `json:"version"`
		}
		if json.Unmarshal(r.Event.Data, &data) != nil {
			data.Version = None // whichever it has is published behind it
		}
		versions[r.Key] = data.Version
	}
	return versions
}

// Settle publishes what companies have by now wherever that is not what was published of them last, until it is. What it publishes is the
// result of the event that made the configuration, once more, with its id. Where that event is not known any more the id is
// made of company and version, so doing it twice is harmless as well.
func Settle(ctx context.Context, source Source, topic string, published map[string]int64, publish func(context.Context, []kafka.Result) error) error {
	last := maps.Clone(published)
	for len(last) > 0 {
		now, err := source.ConfigsNow(ctx, last)
		if err != nil || len(now) == 0 {
			return err
		}
		newer := make([]kafka.Result, len(now))
		for i := range now {
			c := &now[i]
			if newer[i], err = result(ctx, source, topic, c); err != nil {
				return err
			}
			last[c.CompanyID] = c.Version
		}
		if err := publish(ctx, newer); err != nil {
			return err
		}
	}
	return nil
}

// result is the record of what a company has.
func result(ctx context.Context, source Source, topic string, c *postgres.ConfigNow) (kafka.Result, error) {
	r := kafka.Result{Topic: topic, Key: c.CompanyID}
	if c.Version == Tombstone {
		return r, nil
	}
	var err error
	if r.Event, err = source.ConfigResult(ctx, c); err != nil || r.Event != nil {
		return r, err
	}
	data, err := json.Marshal(map[string]any{"company_id": c.CompanyID, "version": c.Version, "config": c.Config})
	if err != nil {
		return r, fmt.Errorf("publish the configuration of company %s: %w", c.CompanyID, err)
	}
	const consumer = "config"
	cause := &events.Envelope{Source: events.SourceOf(consumer), ID: fmt.Sprintf("config:%s:%d", c.CompanyID, c.Version)}
	r.Event = events.NewResult(consumer, cause, events.TypeConfigChanged, 0, c.UpdatedAt, data)
	return r, nil
}
