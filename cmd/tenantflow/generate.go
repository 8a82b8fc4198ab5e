package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/generate"
)

func newGenerateCommand(*app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make traffic to try things out with, the same for the same seed",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGenerateUsageCommand(), newGenerateCompaniesCommand())
	return cmd
}

func newGenerateUsageCommand() *cobra.Command {
	var config generate.Usage
	var start string
	cmd := &cobra.Command{
		Use:   "usage --count N",
		Short: "Write usage events as lines of JSON, one CloudEvent each, its key as the extension partitionkey",
		Long: `Usage writes CloudEvents of type usage.recorded.v1 to standard output, as "produce" reads them. They depend on
nothing but the flags: the same flags give the same bytes. Only the default of --start depends on the clock.

Companies and users have the ids that "generate companies" gives them: c00000, c00001, ... and c00000-u000001, ... The first user of
a company is there as soon as the company is registered. Usage of users who are not there is stored and counted, without a limit.`,
		Example: `  tenantflow generate usage --count 1000 | tenantflow produce --topic usage.events --file -
  tenantflow generate usage --count 1000000 --seed 7 --start 2026-11-01T00:00:00Z > events.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setStart(&config, start); err != nil {
				return err
			}
			// 0 is the default in a Config, and a mistake on the command line.
			for _, flag := range []struct {
				name  string
				value int64
			}{{"companies", int64(config.Companies)}, {"users", int64(config.UsersPerCompany)}, {"step", int64(config.Step)}} {
				if flag.value == 0 {
					return invalid("--%s is 0; give at least 1", flag.name)
				}
			}
			stream, err := config.WithDefaults()
			if err != nil {
				return invalid("%w", err)
			}
			n := 0
			return writeLines(cmd, func(b []byte) ([]byte, bool) {
				if n == stream.Count {
					return b, false
				}
				e, _ := stream.At(n)
				n++
				return e.AppendStructured(b, true), true
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&config.Count, "count", 1000, "number of events, resends included")
	f.Uint64Var(&config.Seed, "seed", 1, "which of the possible streams")
	f.IntVar(&config.Companies, "companies", 200, "number of companies")
	f.IntVar(&config.UsersPerCompany, "users", 50, "users of each company")
	f.Float64Var(&config.Resends, "resends", 0.01, "share of events that repeat an earlier one, 0 to 1")
	f.Float64Var(&config.Conflicts, "conflicts", 0, "share of events that repeat the identity of an earlier one with other data")
	f.Float64Var(&config.Late, "late", 0.01, "share of events with a timestamp long past")
	f.DurationVar(&config.LateSpan, "late-span", 90*24*time.Hour, "how far back late events reach")
	f.StringVar(&start, "start", "", "timestamp of the first event, RFC 3339 (default: so that the last one is of now)")
	f.DurationVar(&config.Step, "step", 20*time.Millisecond, "average time between two events")
	return cmd
}

func setStart(config *generate.Usage, start string) error {
	if start == "" {
		config.Start = time.Now().Add(-time.Duration(config.Count) * config.Step).UTC().Truncate(time.Second)
		return nil
	}
	at, err := time.Parse(time.RFC3339, start)
	if err != nil {
		return invalid("--start %s is no RFC 3339 timestamp like 2026-11-01T00:00:00Z", start)
	}
	config.Start = at
	return nil
}

// writeLines writes the lines that next appends, until there is none left.
func writeLines(cmd *cobra.Command, next func([]byte) ([]byte, bool)) error {
	p := newProgress(cmd.ErrOrStderr(), "generate")
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<20)
	written := 0
	for line, ok := next(nil); ok; line, ok = next(line[:0]) {
		line = append(line, '\n')
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("write event %d: %w", written+1, err)
		}
		written++
		if written%1000 == 0 {
			if err := cmd.Context().Err(); err != nil {
				return flushed(out, fmt.Errorf("stopped after %d events", written))
			}
			p.update(slog.Int("events", written))
		}
	}
	if p.terminal || written >= 100_000 { // a short run needs no progress report
		p.done(slog.Int("events", written))
	}
	return flushed(out, nil)
}

// flushed writes what is buffered, so that what was made before a stop is whole lines.
func flushed(out *bufio.Writer, err error) error {
	if flushErr := out.Flush(); flushErr != nil && err == nil {
		return fmt.Errorf("write events: %w", flushErr)
	}
	return err
}
