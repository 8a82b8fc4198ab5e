package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// StackOptions say where and how all four engines run.
type StackOptions struct {
	Dir   string    // holds a directory for each engine
	Log   io.Writer // as Options.Log
	Kafka KafkaKind // as Options.Kind

	ClickHousePort, KafkaPort, PostgresPort, RedisPort int // 0: a free one
}

// A Stack is everything tenantflow talks to: one engine of each kind.
type Stack struct {
	ClickHouse *ClickHouse
	Kafka      *Kafka
	Postgres   *Postgres
	Redis      *Redis
}

// A StackLine describes one engine of a stack to a person.
type StackLine struct {
	Name    string
	Address string
	Pid     int
	Log     string // path of its log
}

// StartStack starts the four engines side by side. When one can't be started the others are stopped again.
func StartStack(ctx context.Context, o StackOptions) (*Stack, error) {
	var s Stack
	group, ctx := errgroup.WithContext(ctx)
	options := func(name string, port int) Options {
		return Options{Dir: filepath.Join(o.Dir, name), Port: port, Log: o.Log, Kind: o.Kafka}
	}
	group.Go(func() (err error) {
		s.ClickHouse, err = StartClickHouse(ctx, options("clickhouse", o.ClickHousePort))
		return err
	})
	group.Go(func() (err error) {
		// A directory for each kind: one can't read what the other wrote.
		name := "kafka"
		if o.Kafka == Apache {
			name = "apache-kafka"
		}
		s.Kafka, err = StartKafka(ctx, options(name, o.KafkaPort))
		return err
	})
	group.Go(func() (err error) {
		s.Postgres, err = StartPostgres(ctx, options("postgres", o.PostgresPort))
		return err
	})
	group.Go(func() (err error) {
		s.Redis, err = StartRedis(ctx, options("redis", o.RedisPort))
		return err
	})
	if err := group.Wait(); err != nil {
		err = errors.Join(err, s.Stop())
		s.Release()
		return nil, err
	}
	return &s, nil
}

// engines lists those that were started.
func (s *Stack) engines() []*instance {
	var all []*instance
	if s.ClickHouse != nil {
		all = append(all, s.ClickHouse.instance)
	}
	if s.Kafka != nil {
		all = append(all, s.Kafka.instance)
	}
	if s.Postgres != nil {
		all = append(all, s.Postgres.instance)
	}
	if s.Redis != nil {
		all = append(all, s.Redis.instance)
	}
	return all
}

// Environment is the stack's addresses as the settings of tenantflow, NAME=value.
func (s *Stack) Environment() []string {
	return []string{
		"TENANTFLOW_KAFKA_BROKERS=" + s.Kafka.Addr(),
		"TENANTFLOW_CLICKHOUSE_DSN=" + s.ClickHouse.DSN(),
		"TENANTFLOW_POSTGRES_DSN=" + s.Postgres.DSN(),
		"TENANTFLOW_DRAGONFLY_URL=" + s.Redis.URL(),
	}
}

// WriteEnv writes Environment to a file, one a line, in one step: a process that waits for the file finds it complete.
func (s *Stack) WriteEnv(path string) error {
	if err := writeFile(path, strings.Join(s.Environment(), "\n")+"\n"); err != nil {
		return fmt.Errorf("write the stack's addresses: %w", err)
	}
	return nil
}

// Lines describes the engines.
func (s *Stack) Lines() []StackLine {
	addresses := map[*instance]string{
		s.ClickHouse.instance: s.ClickHouse.DSN(), s.Kafka.instance: s.Kafka.Addr() + " (" + string(s.Kafka.Kind()) + ")",
		s.Postgres.instance: s.Postgres.DSN(), s.Redis.instance: s.Redis.URL(),
	}
	var lines []StackLine
	for _, e := range s.engines() {
		lines = append(lines, StackLine{Name: e.name, Address: addresses[e], Pid: e.Pid(), Log: e.LogPath()})
	}
	return lines
}

// Wait returns nil when ctx ends, or an error that names the engine when one has died before.
func (s *Stack) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	died := make(chan error, len(s.engines()))
	for _, e := range s.engines() {
		exited := e.Exited()
		go func() {
			select {
			case <-exited:
				died <- fmt.Errorf("%s on %s died; its log %s ends:\n%s", e.name, e.Addr(), e.LogPath(), e.LogTail())
			case <-ctx.Done():
			}
		}()
	}
	select {
	case err := <-died:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stop stops all engines cleanly, side by side.
func (s *Stack) Stop() error {
	engines := s.engines()
	errs := make([]error, len(engines))
	var group errgroup.Group
	for i, e := range engines {
		group.Go(func() error {
			errs[i] = e.Stop()
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs, all of them
	return errors.Join(errs...)
}

// Release gives the reserved ports back. The stack can't be started after that.
func (s *Stack) Release() {
	for _, e := range s.engines() {
		e.Release()
	}
	if s.Kafka != nil {
		s.Kafka.Release()
	}
}
