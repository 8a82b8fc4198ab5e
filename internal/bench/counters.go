package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine"
	"tenantflow/internal/model"
	"tenantflow/internal/tier"
	"tenantflow/migrations"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// members says which company each user belongs to, and which tier each company has.
type members struct {
	company map[string]string // by user
	tier    map[string]string // by company
}

// counters is what is to be counted of the model's events, by Redis key, and for whom.
func counters(want *model.Expected) (map[string]int64, members, error) {
	counts := map[string]int64{}
	who := members{company: map[string]string{}, tier: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(want.Tables.Daily)) {
		part := strings.Split(key, "|") // company, user, tier, day
		day, err := time.Parse(time.DateOnly, part[3])
		if err != nil {
			return nil, who, fmt.Errorf("read %q of the model: %w", key, err)
		}
		counts[dragonfly.QuotaKey(part[1], day)] += want.Tables.Daily[key].Rows
		who.company[part[1]] = part[0]
		if who.tier[part[0]] == "" { // some change it on the way
			who.tier[part[0]] = part[2]
		}
	}
	return counts, who, nil
}

// openCounters starts what the quota consumer needs: Redis, which persists nothing, so that the disk has no part in the
// numbers, and Postgres with the tables and the catalogue of tiers.
func (w *world) openCounters(ctx context.Context) (err error) {
	if w.redis, err = engine.StartRedis(ctx, engine.Options{Dir: filepath.Join(w.Dir, "redis"), Log: w.Log, Persistence: engine.Forgetful}); err != nil {
		return err
	}
	o, err := redis.ParseURL(w.redis.URL())
	if err != nil {
		return err
	}
	o.Protocol, o.DisableIdentity = 2, true
	w.counts = redis.NewClient(o)
	if w.postgres, err = engine.StartPostgres(ctx, engine.Options{Dir: filepath.Join(w.Dir, "postgres"), Log: w.Log}); err != nil {
		return err
	}
	return tables(ctx, w.postgres.DSN())
}

// tables makes the service's tables in a database of Postgres, and the catalogue of tiers.
func tables(ctx context.Context, dsn string) (err error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	m, err := migrations.OpenPostgres(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if _, err := m.Up(ctx); err != nil {
		return err
	}
	store, err := postgres.Open(ctx, postgres.Config{DSN: dsn})
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.SyncTiers(ctx, tier.Default())
	return err
}

// companiesOf makes a database of Postgres for companies of its own, and returns its DSN.
func (w *world) companiesOf(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, w.postgres.DSN())
	if err != nil {
		return "", fmt.Errorf("make the database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(ctx) }() // everything was answered before
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("make the database %s: %w", name, err)
	}
	address, err := url.Parse(w.postgres.DSN())
	if err != nil {
		return "", err
	}
	address.Path = "/" + name
	return address.String(), tables(ctx, address.String())
}

func (w *world) closeCounters() error {
	var errs []error
	if w.counts != nil {
		errs = append(errs, w.counts.Close())
	}
	if w.redis != nil {
		errs = append(errs, w.redis.Stop())
		w.redis.Release()
	}
	if w.postgres != nil {
		errs = append(errs, w.postgres.Stop())
		w.postgres.Release()
		errs = append(errs, os.RemoveAll(filepath.Join(w.Dir, "postgres", "data")))
	}
	return errors.Join(errs...)
}

// know gives every user a company with a subscription, so that limits are looked at.
func (w *world) know(ctx context.Context, m members) error {
	conn, err := pgx.Connect(ctx, w.postgres.DSN())
	if err != nil {
		return fmt.Errorf("write users to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // everything is committed by then
	companies, users := slices.Sorted(maps.Keys(m.tier)), slices.Sorted(maps.Keys(m.company))
	tiers, of := make([]string, len(companies)), make([]string, len(users))
	for i, c := range companies {
		tiers[i] = m.tier[c]
	}
	for i, u := range users {
		of[i] = m.company[u]
	}
	for _, write := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO companies (company_id, name, billing_email) SELECT id, id, id || '@example.com' FROM unnest($1::text[]) AS id
			ON CONFLICT DO NOTHING`, []any{companies}},
		{`INSERT INTO subscriptions (company_id, tier) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING`, []any{companies, tiers}},
		{`INSERT INTO user_directory (user_id, company_id) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING`, []any{users, of}},
		// A service that starts reads the changes of the last hours. Never are they all there are.
		{`DELETE FROM changes`, nil},
	} {
		if _, err := conn.Exec(ctx, write.sql, write.args...); err != nil {
			return fmt.Errorf("write users to Postgres: %w", err)
		}
	}
	return nil
}

// forget empties Redis.
func (w *world) forget(ctx context.Context) error {
	w.counted = counted{}
	if err := w.counts.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("empty Redis: %w", err)
	}
	return w.counts.ConfigResetStat(ctx).Err()
}

// info is a value of Redis about itself; empty: it is not reported.
func (w *world) info(ctx context.Context, section, name string) string {
	text, err := w.counts.Info(ctx, section).Result()
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return value
		}
	}
	return ""
}

// sum reads all counters of a dataset, and gives the first that is not what it should be.
func (w *world) sum(ctx context.Context, d dataset, plain bool) (sum int64, wrong string, err error) {
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(d.counters)), 2000) {
		pipe := w.counts.Pipeline()
		answers := make([]*redis.StringCmd, len(keys))
		for i, key := range keys {
			if plain {
				answers[i] = pipe.Get(ctx, key)
			} else {
				answers[i] = pipe.HGet(ctx, key, "api_calls")
			}
		}
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return 0, "", fmt.Errorf("read counters: %w", err)
		}
		for i, key := range keys {
			n, err := answers[i].Int64()
			if err != nil && !errors.Is(err, redis.Nil) {
				return 0, "", fmt.Errorf("read the counter %s: %w", key, err)
			}
			if n != d.counters[key] && wrong == "" {
				wrong = fmt.Sprintf("%s is %d, want %d", key, n, d.counters[key])
			}
			sum += n
		}
	}
	return sum, wrong, nil
}

// sampled reports whether some counters of a dataset are what they should be.
func (w *world) sampled(ctx context.Context, d dataset) (bool, error) {
	const few = 100
	keys := slices.Sorted(maps.Keys(d.counters))
	pipe := w.counts.Pipeline()
	answers := map[string]*redis.StringCmd{}
	for i := 0; i < len(keys); i += max(1, len(keys)/few) {
		answers[keys[i]] = pipe.HGet(ctx, keys[i], "api_calls")
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("read counters: %w", err)
	}
	for key, answer := range answers {
		if n, err := answer.Int64(); err != nil || n != d.counters[key] {
			return false, nil //nolint:nilerr // it is not there yet
		}
	}
	return true, nil
}

// incremented is how many INCRBY Redis has run since it was emptied.
func (w *world) incremented(ctx context.Context) (int64, error) {
	stat := w.info(ctx, "commandstats", "cmdstat_incrby") // calls=N,usec=...
	first, _, _ := strings.Cut(strings.TrimPrefix(stat, "calls="), ",")
	if first == "" {
		return 0, nil
	}
	return strconv.ParseInt(first, 10, 64)
}
