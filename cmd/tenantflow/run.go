package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tenantflow/internal/config"
)

// parts lists what `run` can run, in the order of the help.
func parts() []part {
	return []part{
		{name: "usage", stores: []config.Store{config.Kafka, config.ClickHouse}, run: runUsage},
		{name: "quota", stores: []config.Store{config.Kafka, config.Dragonfly, config.Postgres}, run: runQuota},
		{name: "subscription", stores: []config.Store{config.Kafka, config.Postgres, config.Dragonfly}, run: runSubscription},
		{name: "company", stores: []config.Store{config.Kafka, config.Postgres, config.Dragonfly}, run: runCompany},
		{name: "jobs", stores: []config.Store{config.Kafka, config.Postgres, config.ClickHouse}, run: runJobs},
		{name: "api", stores: []config.Store{config.Postgres, config.Dragonfly}, run: runAPI},
	}
}

func newRunCommand(a *app) *cobra.Command {
	var only []string
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service until SIGTERM",
		Long: `Run consumes events until it gets SIGTERM or SIGINT. Then it stops taking events, finishes and commits what is under
way within TENANTFLOW_SHUTDOWN_TIMEOUT, leaves its consumer groups and exits 0. A second signal, at least a second later, ends it at once (exit 1);
nothing is lost then either, it is done after the next start.

Its parts: ` + strings.Join(names, ", ") + `. Without --only it runs all there are. Each needs the addresses of
its own stores only.`,
		Example: `  tenantflow run
  tenantflow run --only usage`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, missing, err := choose(parts(), only)
			if err != nil {
				return err
			}
			cfg, err := a.config(storesOf(chosen)...)
			if err != nil {
				return err
			}
			log := a.logger(cfg, cmd.ErrOrStderr())
			if len(missing) > 0 {
				log.Info("these parts are not there yet and do not run", "parts", strings.Join(missing, ", "))
			}
			redis.SetLogger(redisLog{log})
			s, err := newService(cfg, log, chosen)
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&only, "only", nil, "run only these parts, comma-separated: "+strings.Join(names, ", "))
	return cmd
}

// storesOf lists the stores that any of the parts needs.
func storesOf(parts []part) []config.Store {
	var stores []config.Store
	for _, p := range parts {
		stores = append(stores, p.stores...)
	}
	slices.Sort(stores)
	return slices.Compact(stores)
}

// redisLog takes what go-redis has to say, which otherwise goes to standard error as it is. What matters of it comes back as
// errors as well.
type redisLog struct{ log *slog.Logger }

// Printf implements go-redis's logging.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "go-redis", slog.String("says", fmt.Sprintf(format, v...)))
}

// choose picks the parts that --only names; or all that are there, and then the names of the others are missing.
func choose(all []part, only []string) (chosen []part, missing []string, err error) {
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	for i, name := range only {
		only[i] = strings.TrimSpace(name)
		if !slices.Contains(names, only[i]) {
			return nil, nil, invalid("--only %s: there is no such part; choose from %s", name, strings.Join(names, ", "))
		}
	}
	for _, p := range all {
		asked := slices.Contains(only, p.name)
		switch {
		case asked && p.run == nil:
			return nil, nil, invalid("--only %s: this part is not there yet", p.name)
		case p.run == nil && len(only) == 0:
			missing = append(missing, p.name)
		case asked || len(only) == 0:
			chosen = append(chosen, p)
		}
	}
	return chosen, missing, nil
}
