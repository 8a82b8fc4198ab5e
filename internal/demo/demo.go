// Package demo shows the main job from nothing to its end: a fresh stack, a million usage events of which some come
// twice, late or broken, companies that register, upgrade and expire, the service killed while it works, and then every total,
// every user's quota, every amount and every result beside what was predicted.
package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	_ "github.com/ClickHouse/clickhouse-go/v2" // the driver "clickhouse"
	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine"
	"tenantflow/internal/model"
)

// Config says how large a demonstration is, and on what.
type Config struct {
	Kafka  engine.KafkaKind
	Events int    // messages to publish; default 1,000,000
	Seed   uint64 // of the generator
	Binary string // path of tenantflow; empty: it is built from the sources
	Build  string // where it is built; default bin/tenantflow
	Dir    string // for data and logs, emptied at the start; default .local/demo

	Out io.Writer // the report
	Log io.Writer // what is installed
}

// ErrDifferent is returned when something is not as the generator predicted.
var ErrDifferent = errors.New("the result is not what the generator predicted")

const (
	usageGroup = "tenantflow.usage"
	quotaGroup = "tenantflow.quota"
	kills      = 2

	// stopLimit is how long the service may take to stop: a batch under way, and some room.
	stopLimit = 30 * time.Second
)

// serviceSettings make a killed member's partitions free after 12 s, not the half minute that suits production, and
// batches small enough that a kill has something to interrupt. Shorter still, and on a busy machine inserts would not
// make their deadline.
func serviceSettings() []string {
	return []string{
		"TENANTFLOW_HTTP_ADDR=127.0.0.1:0",
		"TENANTFLOW_LOG_FORMAT=json",
		"TENANTFLOW_KAFKA_SESSION_TIMEOUT=12s",
		"TENANTFLOW_USAGE_INSERT_TIMEOUT=10s",
		"TENANTFLOW_USAGE_BATCH_ROWS=20000",
		"TENANTFLOW_QUOTA_LATENESS=" + lateness.String(),
	}
}

// A demo is one run.
type demo struct {
	Config
	root      string
	began     time.Time
	stack     *engine.Stack
	client    *kafka.Client
	db        *sql.DB
	service   *service
	generator *model.Generator
	quotas    *quotas
	seen      map[userDay]int64 // the highest count that was answered
	result    result
}

// Run does it all. It returns ErrDifferent when everything went well but a total is wrong.
func Run(ctx context.Context, c Config) (err error) {
	if c.Events == 0 {
		c.Events = 1_000_000
	}
	root, err := engine.Root()
	if err != nil {
		return err
	}
	if c.Dir == "" {
		c.Dir = filepath.Join(root, ".local", "demo")
	}
	d := &demo{Config: c, began: time.Now(), root: root, seen: map[userDay]int64{}}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()

	if err := d.work(ctx); err != nil {
		return err
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	d.say("everything read back and compared")
	if err := d.takeBack(ctx); err != nil {
		return err
	}
	d.result.report(c.Out)
	if !d.result.passed() {
		return ErrDifferent
	}
	return nil
}

// lock keeps a second demo from removing the data of one that runs. The file lies beside the directory.
func (d *demo) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(d.Dir), 0o755); err != nil {
		return nil, fmt.Errorf("make a directory for the demo: %w", err)
	}
	f, err := os.OpenFile(d.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.Dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another demo runs in %s: %w", d.Dir, err)
	}
	return func() { f.Close() }, nil
}

// prepare builds the service and brings up a stack without any data.
func (d *demo) prepare(ctx context.Context) error {
	if err := os.RemoveAll(d.Dir); err != nil {
		return fmt.Errorf("remove the data of the demo before: %w", err)
	}
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	if d.Binary == "" {
		d.Binary = d.Build
		if d.Binary == "" {
			d.Binary = filepath.Join(d.root, "bin", "tenantflow")
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", d.Binary, "./cmd/tenantflow")
		cmd.Dir = d.root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build tenantflow: %w\n%s", err, out)
		}
	}
	var err error
	if d.Binary, err = filepath.Abs(d.Binary); err != nil {
		return fmt.Errorf("find tenantflow: %w", err)
	}

	d.stack, err = engine.StartStack(ctx, engine.StackOptions{Dir: d.Dir, Log: d.Log, Kafka: d.Kafka})
	if err != nil {
		return err
	}
	d.say("stack up: ClickHouse, Kafka (%s), PostgreSQL, Redis", d.stack.Kafka.Kind())
	d.client = &kafka.Client{Addr: kafka.TCP(d.stack.Kafka.Addr()), Transport: &kafka.Transport{}}
	if d.db, err = sql.Open("clickhouse", d.stack.ClickHouse.DSN()); err != nil {
		return errors.Join(fmt.Errorf("connect to ClickHouse: %w", err), d.close())
	}
	d.service = &service{binary: d.Binary, dir: d.Dir, environ: d.environ()}
	if err := d.service.command(ctx, "migrate"); err != nil {
		return errors.Join(err, d.close())
	}
	d.say("topics and tables made: tenantflow migrate")
	return nil
}

// environ is this process's environment without settings that are not the demo's.
func (d *demo) environ() []string {
	own := func(v string) bool { return strings.HasPrefix(v, "TENANTFLOW_") }
	environ := slices.DeleteFunc(os.Environ(), own)
	return slices.Concat(environ, d.stack.Environment(), serviceSettings())
}

// close ends whatever runs. Everything it writes is thrown away by the next demo.
func (d *demo) close() error {
	var errs []error
	if d.service != nil {
		errs = append(errs, d.service.kill())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.client != nil {
		d.client.Transport.(*kafka.Transport).CloseIdleConnections()
	}
	errs = append(errs, d.stack.Stop())
	d.stack.Release()
	return errors.Join(errs...)
}

// work publishes the events, has the service consume them, kills it on the way, and returns when the group has consumed
// everything and the service has stopped.
func (d *demo) work(ctx context.Context) error {
	// The events lie behind us, the last one a minute ago: the future is refused.
	const step = 20 * time.Millisecond
	var err error
	d.generator, err = model.New(model.Config{
		Seed: d.Seed, Count: d.Events, Step: step,
		Start:   time.Now().Add(-time.Minute - time.Duration(d.Events)*step).Truncate(time.Second),
		Resends: 0.01, Conflicts: 0.0005, Malformed: 0.002, Late: 0.05, LateSpan: 90 * 24 * time.Hour, Structured: 0.2,
	})
	if err != nil {
		return err
	}
	began := time.Now()
	d.result.published, err = model.Publish(ctx, d.generator, model.Publishing{Client: d.client, Topic: events.TopicUsage})
	if err != nil {
		return fmt.Errorf("publish events: %w", err)
	}
	d.result.expected = d.generator.Expected()
	d.say("%s events published in %s: %s", number(d.result.published), seconds(time.Since(began)),
		rate(d.result.published, time.Since(began)))
	d.quotas = newQuotas(d.result.expected.Tables, time.Now())
	d.result.quotas = d.quotas
	if err := d.makeKnown(ctx); err != nil {
		return err
	}
	d.say("%d companies with %s of the %s users made known in Postgres", len(d.quotas.tenants), number(int64(d.quotas.knownUsers())), number(int64(len(d.quotas.company))))

	if err := d.consume(ctx); err != nil {
		return err
	}
	if err := d.askAtTheEnd(ctx); err != nil {
		return err
	}
	if err := d.reserveTheRest(ctx); err != nil {
		return err
	}
	if err := d.runCompanies(ctx); err != nil {
		return err
	}
	if err := d.service.stop(); err != nil {
		return err
	}
	d.say("everything stored, counted and applied, service stopped by SIGTERM")
	return nil
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.Out, "%7s  %s\n", seconds(time.Since(d.began)), fmt.Sprintf(format, args...))
}
