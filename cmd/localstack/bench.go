package main

import (
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/bench"
)

func newBenchCommand() *cobra.Command {
	var c bench.Config
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the service beside ClickHouse's Kafka engine, the engine's insert limit, plain counting and itself without guarantees",
		Long: `Bench starts Apache Kafka and the stores that it needs, publishes usage events and has one contender after the other read
them. The report goes to standard output as Markdown, what is under way to standard error, all numbers to .local/bench.json.

Measurements: ` + strings.Join(bench.Names(), ", ") + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Out, c.Log = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return bench.MeasureAll(cmd.Context(), c)
		},
	}
	f := cmd.Flags()
	f.IntVar(&c.Events, "events", 2_000_000, "events of the backlog")
	f.IntVar(&c.Runs, "runs", 3, "runs of each contender")
	f.DurationVar(&c.BlockedFor, "blocked-for", 30*time.Second, "how long a phase of tenants_blocked takes")
	f.IntVar(&c.Partitions, "partitions", 8, "partitions of the topics")
	f.IntVar(&c.Companies, "companies", 2000, "companies that are registered")
	f.IntVar(&c.YearRows, "year-rows", 20_000_000, "rows of usage in the year that analyses are measured over")
	f.StringSliceVar(&c.Only, "only", nil, "make these measurements only, comma-separated")
	f.StringVar(&c.Binary, "tenantflow", "", "binary of the service (default bin/tenantflow)")
	f.StringVar(&c.JSON, "json", "", "file for the measurements (default .local/bench.json)")
	f.StringVar(&c.Profile, "profile", "", "file for a CPU profile of the service's code, which runs once more for it; the quota consumer's has .quota behind its name")
	cmd.AddCommand(newBenchChildCommand(), newBenchAskerCommand())
	return cmd
}

// newBenchChildCommand is a consumer that bench runs in a process of its own, so that it is measured as the service is.
func newBenchChildCommand() *cobra.Command {
	var c bench.Child
	cmd := &cobra.Command{
		Use:    "child",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
			return c.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&c.Kind), "kind", string(bench.Unguarded), "guarded, unguarded, counted or plain")
	f.StringVar(&c.Brokers, "brokers", "", "brokers")
	f.StringVar(&c.Topic, "topic", "", "topic")
	f.StringVar(&c.Group, "group", "", "consumer group")
	f.StringVar(&c.DSN, "dsn", "", "ClickHouse")
	f.StringVar(&c.Redis, "redis", "", "Redis")
	f.StringVar(&c.Postgres, "postgres", "", "Postgres")
	f.StringVar(&c.Metrics, "metrics", "127.0.0.1:0", "address of the metrics page")
	f.StringVar(&c.Profile, "profile", "", "file for a CPU profile")
	return cmd
}

// newBenchAskerCommand asks for quotas or reserves, in a process of its own.
func newBenchAskerCommand() *cobra.Command {
	var a bench.Asker
	var from, until string
	cmd := &cobra.Command{
		Use:    "asker",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if a.From, err = time.Parse(time.RFC3339Nano, from); err != nil {
				return err
			}
			if a.Until, err = time.Parse(time.RFC3339Nano, until); err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&a.Addr, "addr", "", "HOST:PORT of the service")
	f.StringVar(&a.Users, "users", "", "file with the users")
	f.IntVar(&a.Rate, "rate", 0, "requests a second")
	f.IntVar(&a.Connections, "connections", 1, "connections")
	f.BoolVar(&a.Reserve, "reserve", false, "reserve instead of asking")
	f.StringVar(&from, "from", "", "time from which on requests count")
	f.StringVar(&until, "until", "", "time of the last request")
	f.StringVar(&a.Out, "out", "", "file for the measurements")
	return cmd
}
