package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/engine"
)

// upOptions are the flags of localstack up.
type upOptions struct {
	kafka     string
	data      string
	env       string
	freePorts bool
	ports     struct{ clickhouse, kafka, postgres, redis int }
}

func newUpCommand() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run all engines in the foreground and write their addresses to .local/stack.env",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return up(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kafka, "kafka", kafkaKindFromEnvironment(), "broker: embedded, or apache for a real Apache Kafka; default from $KAFKA")
	f.StringVar(&o.data, "data", "", "directory for the engines' data and logs (default .local/data)")
	f.StringVar(&o.env, "env", "", "file that gets the addresses (default .local/stack.env)")
	f.BoolVar(&o.freePorts, "free-ports", false, "take free ports in place of the usual ones")
	f.IntVar(&o.ports.clickhouse, "clickhouse-port", 8123, "port of ClickHouse's HTTP interface")
	f.IntVar(&o.ports.kafka, "kafka-port", 9092, "port of Kafka")
	f.IntVar(&o.ports.postgres, "postgres-port", 5432, "port of PostgreSQL")
	f.IntVar(&o.ports.redis, "redis-port", 6379, "port of Redis")
	return cmd
}

func kafkaKindFromEnvironment() string {
	if k := os.Getenv("KAFKA"); k != "" {
		return k
	}
	return string(engine.Embedded)
}

// up runs the stack until the context ends or an engine dies.
func up(ctx context.Context, out, log io.Writer, o upOptions) error {
	root, err := engine.Root()
	if err != nil {
		return err
	}
	if o.data == "" {
		o.data = filepath.Join(root, ".local", "data")
	}
	if o.env == "" {
		o.env = filepath.Join(root, ".local", "stack.env")
	}
	if o.freePorts {
		o.ports.clickhouse, o.ports.kafka, o.ports.postgres, o.ports.redis = 0, 0, 0, 0
	}
	// Addresses of a stack that was killed would lead nowhere.
	if err := os.Remove(o.env); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old addresses: %w", err)
	}

	began := time.Now()
	stack, err := engine.StartStack(ctx, engine.StackOptions{
		Dir: o.data, Log: log, Kafka: engine.KafkaKind(o.kafka),
		ClickHousePort: o.ports.clickhouse, KafkaPort: o.ports.kafka, PostgresPort: o.ports.postgres, RedisPort: o.ports.redis,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted while starting: there is nothing to tell
		}
		if errors.Is(err, syscall.EADDRINUSE) && !o.freePorts {
			return fmt.Errorf("%w\nlocalstack up --free-ports takes others", err)
		}
		return err
	}
	defer stack.Release()
	if err := stack.WriteEnv(o.env); err != nil {
		return errors.Join(err, stack.Stop())
	}
	show(out, stack, o, time.Since(began))

	dead := stack.Wait(ctx)
	if err := os.Remove(o.env); err != nil && !errors.Is(err, os.ErrNotExist) {
		dead = errors.Join(dead, err)
	}
	fmt.Fprintln(out, "stopping")
	return errors.Join(dead, stack.Stop())
}

// show prints where everything is.
func show(out io.Writer, stack *engine.Stack, o upOptions, took time.Duration) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, l := range stack.Lines() {
		fmt.Fprintf(w, "%s\t%s\tpid %d\t%s\n", l.Name, l.Address, l.Pid, relative(l.Log))
	}
	_ = w.Flush() // standard output; if it is gone, there is nowhere to report it
	fmt.Fprintf(out, "\nReady after %s. Addresses are in %s:\n  set -a; . %s; set +a\nCtrl-C stops the stack; data stays in %s.\n",
		took.Round(100*time.Millisecond), relative(o.env), relative(o.env), relative(o.data))
}

// relative shortens a path below the working directory.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return rel
}
