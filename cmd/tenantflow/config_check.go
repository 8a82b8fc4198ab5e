package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"tenantflow/internal/config"
	"tenantflow/internal/service"
	"tenantflow/internal/tier"
)

// A checkedConfig is what config check found.
type checkedConfig struct {
	Valid    bool             `json:"valid"`
	Problems []config.Problem `json:"problems"`
	Stores   []triedStore     `json:"stores,omitempty"` // with --connect
}

type triedStore struct {
	Store  config.Store `json:"store"`
	Usable bool         `json:"usable"`
	Error  string       `json:"error,omitempty"`
}

func newConfigCheckCommand(a *app) *cobra.Command {
	var only []string
	var connect bool
	cmd := &cobra.Command{
		Use:   "check [--only PARTS] [--connect]",
		Short: "Say everything that is wrong with the configuration; exit 2 if anything is",
		Long: `Check reads the configuration as "run" would and says everything that is wrong with it, each problem with what to
do about it. The stores of all parts must have an address; with --only, those of the parts it names.

With --connect it also opens each store as the service would, for at most ` + tryTimeout.String() + ` each, and says which can't be used and why: no
connection, a wrong password, tables that are missing. Otherwise it connects to nothing.

Exit codes: 0 usable; 1 a store can't be used; 2 the configuration is wrong.`,
		Example: `  tenantflow config check --only usage
  tenantflow config check --connect`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, _, err := service.Choose(service.Parts(), only)
			if err != nil {
				return err
			}
			checked := checkedConfig{Problems: []config.Problem{}}
			cfg, err := a.config(service.Stores(chosen)...)
			var found config.Problems
			switch {
			case errors.As(err, &found):
				checked.Problems = found
			case err != nil:
				return err
			}
			checked.Valid = err == nil
			if a.output == outputTable && err != nil {
				return err // the list itself is the message
			}
			if connect && checked.Valid {
				if checked.Stores, err = tryStores(cmd.Context(), cfg, service.Stores(chosen)); err != nil {
					return err
				}
			}
			if shown := a.show(cmd.OutOrStdout(), checked, checked.table); shown != nil {
				return shown
			}
			if err != nil {
				return err
			}
			return checked.verdict()
		},
	}
	cmd.Flags().StringSliceVar(&only, "only", nil, "check for these parts of run only, comma-separated")
	cmd.Flags().BoolVar(&connect, "connect", false, "try the stores as well")
	return cmd
}

func (c *checkedConfig) table() *table {
	t := &table{rows: [][]string{{"the configuration is valid"}}}
	for _, s := range c.Stores {
		state := "usable"
		if !s.Usable {
			state = "not usable: " + s.Error
		}
		t.add(string(s.Store) + ": " + state)
	}
	return t
}

// verdict is an error if a store can't be used.
func (c *checkedConfig) verdict() error {
	var bad []string
	for _, s := range c.Stores {
		if !s.Usable {
			bad = append(bad, string(s.Store))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("not usable: %s", strings.Join(bad, ", "))
	}
	return nil
}

// tryStores opens each store as the service does, closes it again, and looks whether migrate has work to do in it.
func tryStores(ctx context.Context, cfg *config.Config, stores []config.Store) ([]triedStore, error) {
	tiers, err := tier.Load(cfg.TiersFile)
	if err != nil {
		return nil, invalid("TENANTFLOW_TIERS_FILE: %v", err)
	}
	look := &migration{cfg: cfg, tiers: tiers, errOut: io.Discard} // it changes nothing and waits for nothing
	all := make([]triedStore, 0, len(stores))
	for _, s := range stores {
		attempt, cancel := context.WithTimeout(ctx, tryTimeout)
		err := tryStore(attempt, cfg, look, s)
		cancel()
		one := triedStore{Store: s, Usable: err == nil}
		if err != nil {
			one.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		all = append(all, one)
	}
	return all, nil
}

func tryStore(ctx context.Context, cfg *config.Config, look *migration, s config.Store) error {
	found, quiet := &migrated{}, slog.New(slog.DiscardHandler)
	switch s {
	case config.Kafka:
		topics, err := look.topics(ctx)
		if err != nil {
			return err
		}
		found.Topics = topics
	case config.ClickHouse:
		store, err := service.OpenClickHouse(ctx, cfg, quiet)
		if err != nil {
			return err
		}
		if err := store.Close(); err != nil {
			return err
		}
		if found.ClickHouse, err = look.clickHouse(ctx); err != nil {
			return err
		}
	case config.Postgres:
		store, err := service.OpenPostgres(ctx, cfg, tryTimeout, quiet)
		if err != nil {
			return err
		}
		store.Close()
		if found.Postgres, err = look.postgres(ctx); err != nil {
			return err
		}
	case config.Dragonfly:
		store, err := service.OpenCounters(ctx, cfg, quiet)
		if err != nil {
			return err
		}
		return store.Close()
	}
	return found.verdict(true)
}
