package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/companyconfig"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
	"tenantflow/sinks/postgres"
)

// checkTenants looks at companies: at their events, results, books and configurations. It fills in what is to be published again.
func (v *Verifier) checkTenants(ctx context.Context, report *Report, todo *todo) (err error) {
	if v.cfg.Tenants == nil {
		report.note("companies were not looked at: there is no address of Postgres")
		return nil
	}
	if v.cfg.CompanyGroup != "" {
		if err := v.checkInboxes(ctx, report); err != nil {
			return err
		}
		if todo.results, err = v.checkResults(ctx, todo.at, report); err != nil {
			return err
		}
	}
	if err := v.checkBooks(ctx, report); err != nil {
		return err
	}
	todo.configs, err = v.checkConfigs(ctx, report)
	return err
}

// publishedConfig is the last record of a company on the topic of configurations, which is the one that compaction keeps.
type publishedConfig struct {
	partition int
	at        time.Time // of the record
	purged    bool      // a tombstone
	version   int64     // 0: it is no configuration
	sum       [sha256.Size]byte
}

func (c publishedConfig) String() string {
	switch {
	case c.purged:
		return "a record without a value"
	case c.version == 0:
		return "a record that is no configuration"
	}
	return fmt.Sprintf("version %d", c.version)
}

// checkConfigs compares the last record of every company with its configuration.
func (v *Verifier) checkConfigs(ctx context.Context, report *Report) ([]string, error) {
	v.cfg.Progress(Progress{Stage: "configurations", Differences: report.Differences()})
	begun, err := v.cfg.Tenants.Now(ctx)
	if err != nil {
		return nil, err
	}
	last, err := v.publishedConfigs(ctx)
	if errors.Is(err, ErrNotThere) {
		report.note("there is no topic %s, so the configurations that were published are not compared", v.cfg.ConfigTopic)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var stale []string
	const page = 1000
	for after := ""; ; {
		configs, err := v.cfg.Tenants.Configs(ctx, after, page, begun)
		if err != nil {
			return nil, err
		}
		for _, c := range configs {
			after = c.CompanyID
			report.Companies++
			was, there := last[c.CompanyID]
			delete(last, c.CompanyID)
			if !c.Quiet || there && !was.purged && was.version == c.Version && was.sum == sumOf(c.Config) {
				continue
			}
			detail := fmt.Sprintf("%s was published last, and the company has version %d", was, c.Version)
			switch {
			case !there:
				detail = fmt.Sprintf("none was published, and the company has version %d", c.Version)
			case was.version == c.Version:
				detail = fmt.Sprintf("version %d was published with other content", c.Version)
			}
			report.Findings.add(Finding{Kind: StaleConfig, Where: v.cfg.ConfigTopic + " " + c.CompanyID, Detail: detail})
			stale = append(stale, c.CompanyID)
		}
		if len(configs) < page {
			break
		}
	}
	maps.DeleteFunc(last, func(_ string, c publishedConfig) bool { return c.purged })
	purged, err := v.cfg.Tenants.Purged(ctx, slices.Sorted(maps.Keys(last)), begun)
	if err != nil {
		return nil, err
	}
	for _, company := range purged {
		report.Findings.add(Finding{Kind: StaleConfig, Where: v.cfg.ConfigTopic + " " + company,
			Detail: fmt.Sprintf("%s was published last, and the company is purged", last[company])})
		stale = append(stale, company)
	}
	return stale, nil
}

// publishedConfigs reads the topic of configurations to its end.
func (v *Verifier) publishedConfigs(ctx context.Context) (map[string]publishedConfig, error) {
	topic := v.cfg.ConfigTopic
	ids, err := totals.PartitionsOf(ctx, v.cfg.Client, topic)
	if err != nil {
		return nil, err
	}
	last := map[string]publishedConfig{}
	for _, id := range ids {
		bounds, err := kafka.Bounds(ctx, v.cfg.Client, topic, id)
		if err != nil {
			return nil, err
		}
		err = kafka.ReadLog(ctx, v.cfg.Client, topic, id, bounds, func(r *events.Record) error {
			company := string(r.Key)
			if was, there := last[company]; there && was.partition != id && r.Time.Before(was.at) {
				return nil // partitions were added, and the company has another one since
			}
			if len(r.Value) == 0 {
				last[company] = publishedConfig{partition: id, at: r.Time, purged: true}
				return nil
			}
			var data struct {
				Version int64           `json:"version"`
				Config  json.RawMessage `json:"config"`
			}
			if json.Unmarshal(r.Value, &data) != nil {
				data.Version = 0
			}
			last[company] = publishedConfig{id, r.Time, false, data.Version, sumOf(data.Config)}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return last, nil
}

// sumOf is a hash of what a JSON text says, however it is written.
func sumOf(text []byte) [sha256.Size]byte {
	var value any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&value) == nil {
		if canonical, err := json.Marshal(value); err == nil {
			text = canonical
		}
	}
	return sha256.Sum256(text)
}

// publishConfigs publishes the configurations that some companies have by now, and a tombstone for a company that is purged. The service
// may publish a newer one at the same time, and that must be the last.
func (v *Verifier) publishConfigs(ctx context.Context, stale []string) (int64, error) {
	if len(stale) == 0 {
		return 0, nil
	}
	publisher := kafka.NewResults(v.cfg.Client)
	defer func() { _ = publisher.Close() }() // Publish has waited for all of it
	publish := func(ctx context.Context, results []kafka.Result) error {
		return publisher.Publish(ctx, results, func(error) {})
	}
	const atOnce = 200 // of up to 64 KiB each
	mended := int64(0)
	for some := range slices.Chunk(stale, atOnce) {
		published := map[string]int64{}
		for _, company := range some {
			published[company] = companyconfig.None
		}
		if err := companyconfig.Settle(ctx, v.cfg.Tenants, v.cfg.ConfigTopic, published, publish); err != nil {
			return mended, err
		}
		mended += int64(len(some))
	}
	return mended, nil
}

// publishResults publishes results once more, as they are stored. They have the ids they had, so doing it twice is harmless.
func (v *Verifier) publishResults(ctx context.Context, missing []postgres.Result) (int64, error) {
	if len(missing) == 0 {
		return 0, nil
	}
	publisher := kafka.NewResults(v.cfg.Client)
	defer func() { _ = publisher.Close() }() // Publish has waited for all of it
	results := make([]kafka.Result, len(missing))
	for i, one := range missing {
		results[i] = kafka.Result{Topic: v.cfg.TopicPrefix + one.Topic, Key: one.Key, Event: one.Event, Partition: one.Partition}
	}
	if err := publisher.Publish(ctx, results, func(error) {}); err != nil {
		return 0, err
	}
	for _, one := range missing {
		if one.Event != nil && one.Event.Type == events.TypeUsageVoided {
			v.voids[one.Event.ID] = true
		}
	}
	return int64(len(results)), nil
}
