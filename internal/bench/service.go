package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenantflow/internal/engine"
)

// stopLimit is how long a contender may take to stop.
const stopLimit = 40 * time.Second

// service is the real binary as an operator runs it, with settings beside the addresses.
func (w *world) service(name string, settings ...string) contender {
	return contender{name: name, members: 1, start: func(ctx context.Context, d dataset, database, group string) (*running, error) {
		return w.runService(ctx, "usage", d.prefix, database, strings.TrimSuffix(group, usageGroup), settings)
	}}
}

// usageGroup is what the service puts behind the prefix of its groups.
const usageGroup = ".usage"

// runService runs parts of the service, comma-separated. Without a database it has no address of ClickHouse.
func (w *world) runService(ctx context.Context, parts, topicPrefix, database, groupPrefix string, settings []string) (*running, error) {
	addr, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(w.Binary, "run", "--only", parts) //nolint:noctx // it is stopped in order, and killed with this process
	cmd.Env = slices.Concat(w.environ(), []string{
		"TENANTFLOW_KAFKA_BROKERS=" + w.kafka.Addr(),
		"TENANTFLOW_TOPIC_PREFIX=" + topicPrefix,
		"TENANTFLOW_GROUP_PREFIX=" + groupPrefix,
		"TENANTFLOW_HTTP_ADDR=" + addr,
		"TENANTFLOW_LOG_FORMAT=json",
	}, settings)
	if database != "" {
		cmd.Env = append(cmd.Env, "TENANTFLOW_CLICKHOUSE_DSN="+w.clickhouse.DSNOf(database))
	}
	return w.run(cmd, addr)
}

// child is this program as another consumer; see Child.
func (w *world) child(name string, kind ChildKind, profile string) contender {
	return contender{name: name, members: 1, start: func(ctx context.Context, d dataset, database, group string) (*running, error) {
		if kind == Unguarded {
			if err := w.unguard(ctx, database); err != nil {
				return nil, err
			}
		}
		return w.runChild(ctx, kind, d, group, profile, "--dsn", w.clickhouse.DSNOf(database))
	}}
}

// runChild starts this program as a consumer. stores are the flags that name the stores it needs.
func (w *world) runChild(ctx context.Context, kind ChildKind, d dataset, group, profile string, stores ...string) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	args := append([]string{"bench", "child", "--kind", string(kind), "--brokers", w.kafka.Addr(), "--topic", d.topic(),
		"--group", group, "--metrics", addr, "--profile", profile}, stores...)
	cmd := exec.Command(self, args...) //nolint:noctx // as above
	cmd.Env = w.environ()
	return w.run(cmd, addr)
}

// environ is this process's environment without settings of the service.
func (w *world) environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TENANTFLOW_") })
}

// run starts a command whose log goes to a file.
func (w *world) run(cmd *exec.Cmd, metrics string) (*running, error) {
	path := filepath.Join(w.Dir, fmt.Sprintf("service-%d.log", w.groups))
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := engine.Run(cmd)
	if err != nil {
		return nil, err
	}
	logTail := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		return strings.Join(lines[max(0, len(lines)-10):], "\n")
	}
	stop := func() error {
		if err := p.Stop(stopLimit); err != nil {
			return err
		}
		if err := p.Err(); err != nil {
			return fmt.Errorf("the service did not stop in order: %w\n%s", err, logTail())
		}
		return nil
	}
	return &running{process: p, metrics: metrics, stop: stop, logTail: logTail}, nil
}

// unguard takes the tables' part of the guarantees away: the deadline of inserts and the log of their tokens.
func (w *world) unguard(ctx context.Context, database string) error {
	if _, err := w.clickhouse.Query(ctx, "ALTER TABLE "+database+".usage_tracking DROP CONSTRAINT in_time"); err != nil {
		return err
	}
	for _, table := range []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"} {
		if _, err := w.clickhouse.Query(ctx, "ALTER TABLE "+database+"."+table+" MODIFY SETTING non_replicated_deduplication_window = 0"); err != nil {
			return err
		}
	}
	return nil
}
