package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/topic"
	"tenantflow/migrations"
)

// A world is the engines that all contenders share, and the events that are published for them.
type world struct {
	Config
	began      time.Time
	clickhouse *engine.ClickHouse
	kafka      *engine.Kafka
	client     *kafka.Client
	redis      *engine.Redis    // nil: nothing is to be counted
	postgres   *engine.Postgres // likewise
	counts     *redis.Client
	published  map[string]dataset
	counted    counted // what Redis holds
	groups     int     // consumer groups made so far
	databases  int     // databases made so far
}

// counted says which service's complete counts Redis holds.
type counted struct {
	prefix string // of the service's groups; empty: Redis holds no complete counts
	data   string // the dataset
}

// open starts the engines without any data.
func open(ctx context.Context, c Config) (*world, error) {
	if err := os.RemoveAll(c.Dir); err != nil {
		return nil, fmt.Errorf("remove the data of the benchmark before: %w", err)
	}
	if _, err := os.Stat(c.Binary); err != nil {
		return nil, fmt.Errorf("find the service to measure: %w (make build)", err)
	}
	w := &world{Config: c, began: time.Now(), published: map[string]dataset{}}
	var err error
	if w.kafka, err = engine.StartKafka(ctx, engine.Options{Dir: filepath.Join(c.Dir, "kafka"), Log: c.Log, Kind: engine.Apache}); err != nil {
		return nil, err
	}
	w.client = &kafka.Client{Addr: kafka.TCP(w.kafka.Addr()), Transport: &kafka.Transport{}}
	if slices.ContainsFunc(c.Only, stores) {
		if w.clickhouse, err = engine.StartClickHouse(ctx, engine.Options{Dir: filepath.Join(c.Dir, "clickhouse"), Log: c.Log}); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	if slices.ContainsFunc(c.Only, counts) {
		if err := w.openCounters(ctx); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	w.say("the engines are up")
	return w, nil
}

// close stops the engines. What they have written is thrown away by the next benchmark, and is large: it goes now.
func (w *world) close() error {
	var errs []error
	if w.clickhouse != nil {
		errs = append(errs, w.clickhouse.Stop())
		w.clickhouse.Release()
		errs = append(errs, os.RemoveAll(filepath.Join(w.Dir, "clickhouse", "data")))
	}
	errs = append(errs, w.closeCounters())
	if w.client != nil {
		w.client.Transport.(*kafka.Transport).CloseIdleConnections()
	}
	errs = append(errs, w.kafka.Stop())
	w.kafka.Release()
	errs = append(errs, os.RemoveAll(filepath.Join(w.Dir, "kafka", "data")))
	return errors.Join(errs...)
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.Log, "%6.1fs  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

// topics makes the usage topic behind a prefix, with its dead letters, and the topic of threshold events.
func (w *world) topics(ctx context.Context, prefix string, partitions int) error {
	var wanted []topic.Topic
	for _, t := range topic.All(topic.Settings{Prefix: prefix, Partitions: partitions}) {
		if t.Name == prefix+events.TopicUsage || t.DeadLetters == prefix+events.TopicUsage || t.Name == prefix+events.TopicQuota {
			wanted = append(wanted, t)
		}
	}
	if _, err := topic.Ensure(ctx, w.client, wanted); err != nil {
		return err
	}
	// A new partition has a leader before that one knows.
	var ends []kafka.OffsetRequest
	for p := range partitions {
		ends = append(ends, kafka.LastOffsetOf(p))
	}
	name := prefix + events.TopicUsage
	return w.await(ctx, name+" to have leaders", time.Minute, 50*time.Millisecond, func() (bool, error) {
		res, err := w.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: ends}})
		if err != nil || len(res.Topics[name]) != partitions {
			return false, nil //nolint:nilerr // not yet
		}
		for _, p := range res.Topics[name] {
			if p.Error != nil {
				return false, nil //nolint:nilerr // not yet
			}
		}
		return true, nil
	})
}

// database makes an empty database with the tables and views of the service, for one run.
func (w *world) database(ctx context.Context) (name string, err error) {
	w.databases++
	name = fmt.Sprintf("bench_%d", w.databases)
	o, err := chgo.ParseDSN(w.clickhouse.DSNOf(name))
	if err != nil {
		return "", err
	}
	m, err := migrations.OpenClickHouse(ctx, o, true)
	if err != nil {
		return "", err
	}
	defer func() { _ = m.Close() }() // nothing is written through it any more
	_, err = m.Up(ctx)
	return name, err
}

// retire takes a database away from the engine, and waits until that is at rest: merges of one contender must not slow
// the next down. The files stay until the end: ext4 passes over an inode for a minute after its file was deleted, so
// that the next contender would pay for finding other ones, up to a third of the engine's time.
func (w *world) retire(ctx context.Context, name string) error {
	if _, err := w.clickhouse.Query(ctx, "DETACH DATABASE "+name); err != nil {
		return err
	}
	return w.await(ctx, "merges to end", time.Minute, 100*time.Millisecond, func() (bool, error) {
		n, err := w.number(ctx, "SELECT count() FROM system.merges")
		return n == 0, err
	})
}

// number asks ClickHouse for one integer.
func (w *world) number(ctx context.Context, sql string) (int, error) {
	text, err := w.clickhouse.Query(ctx, sql)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("read a number from ClickHouse: %w", err)
	}
	return n, nil
}

// await polls until done.
func (w *world) await(ctx context.Context, what string, limit, every time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("waited %s for %s in vain", limit, what))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// group names a consumer group that has never been.
func (w *world) group(name string) string {
	w.groups++
	return fmt.Sprintf("bench-%s-%d%s", name, w.groups, usageGroup)
}

// describe says what the numbers were measured on.
func (w *world) describe(ctx context.Context) []string {
	engines := []string{"Apache Kafka"}
	if w.clickhouse != nil {
		version, err := w.clickhouse.Query(ctx, "SELECT version()")
		if err != nil {
			version = err.Error()
		}
		engines = append(engines, "ClickHouse "+strings.TrimSpace(version)+" (libchdb)")
	}
	if w.counts != nil {
		engines = append(engines, "Redis "+w.info(ctx, "server", "redis_version")+" (nothing persisted)")
	}
	return machine(engines)
}
