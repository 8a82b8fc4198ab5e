package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/segmentio/kafka-go"
	"github.com/spf13/cobra"

	"tenantflow/internal/config"
	"tenantflow/internal/tier"
	"tenantflow/internal/topic"
	"tenantflow/migrations"
	"tenantflow/sinks/postgres"
)

// tryTimeout bounds one attempt to reach a store, so that one that swallows connections is tried again as well.
const tryTimeout = 5 * time.Second

func newMigrateCommand(a *app) *cobra.Command {
	var status bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "migrate [--status]",
		Short: "Bring tables and topics up to this version; with --status only say how they are",
		Long: `Migrate creates what is missing: the Postgres database with its tables, the ClickHouse database with its tables and
views, and the Kafka topics. It writes the catalogue of tiers (TENANTFLOW_TIERS_FILE) to Postgres, and brings the tables
of every company to the newest version. It can be run again at any time, also by several processes at once, and then does
nothing.

A topic that exists is never changed. If it is set up so that events could be lost, that is said, and the exit code
is 1. With --status nothing is created, and the exit code is 1 if there is anything to do.`,
		Example: `  tenantflow migrate
  tenantflow migrate --wait 2m        while the stores are still starting
  tenantflow migrate --status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 {
				return invalid("--wait %s is negative", wait)
			}
			cfg, err := a.config(config.Kafka, config.ClickHouse, config.Postgres)
			if err != nil {
				return err
			}
			tiers, err := tier.Load(cfg.TiersFile)
			if err != nil {
				return invalid("TENANTFLOW_TIERS_FILE: %w", err)
			}
			if cfg.ClickHouseCluster != "" {
				// Tables of a single server on one node of a cluster would be taken for the whole.
				return invalid("TENANTFLOW_CLICKHOUSE_CLUSTER=%s: migrate can't create replicated tables yet; unset it for a single server", cfg.ClickHouseCluster)
			}
			m := migration{cfg: cfg, tiers: tiers, create: !status, deadline: time.Now().Add(wait), errOut: cmd.ErrOrStderr()}
			found, failure := m.run(cmd.Context())
			if err := a.show(cmd.OutOrStdout(), found, found.table); err != nil {
				return err
			}
			if failure != nil {
				return failure
			}
			return found.verdict(status)
		},
	}
	cmd.Flags().BoolVar(&status, "status", false, "create nothing; say what is there and what is missing")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for a store that does not answer")
	return cmd
}

// A migration is one run of the command.
type migration struct {
	cfg      *config.Config
	tiers    *tier.Catalogue
	create   bool
	deadline time.Time // no further attempt to reach a store after it
	errOut   io.Writer // where progress is printed
}

// migrated is what a migration found and did.
type migrated struct {
	Postgres   *migratedPostgres `json:"postgres,omitempty"`   // nil: it was not reached
	ClickHouse *migratedStore    `json:"clickhouse,omitempty"` // nil: it was not reached
	Topics     []topic.Report    `json:"topics,omitempty"`
}

type migratedStore struct {
	Database string            `json:"database"`
	Versions []migratedVersion `json:"versions"`
}

type migratedVersion struct {
	Version int64      `json:"version"`
	Name    string     `json:"name"`
	State   string     `json:"state"` // applied (before), created (now), pending
	Applied *time.Time `json:"applied,omitempty"`
}

// run works on every store, also when another has failed.
func (m *migration) run(ctx context.Context) (*migrated, error) {
	found := &migrated{}
	var postgresErr, clickHouseErr, topicErr error
	found.Postgres, postgresErr = m.postgres(ctx)
	found.ClickHouse, clickHouseErr = m.clickHouse(ctx)
	found.Topics, topicErr = m.topics(ctx)
	return found, errors.Join(postgresErr, clickHouseErr, topicErr)
}

func (m *migration) clickHouse(ctx context.Context) (*migratedStore, error) {
	options, err := m.cfg.ClickHouseOptions()
	if err != nil {
		return nil, err
	}
	var db *migrations.ClickHouse
	err = m.reach(ctx, func(ctx context.Context) error {
		db, err = migrations.OpenClickHouse(ctx, options, m.create)
		return err
	})
	if errors.Is(err, migrations.ErrNoDatabase) {
		versions, err := migrations.ClickHouseVersions()
		store := storeOf(options.Auth.Database, versions, nil)
		return &store, err
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // everything was answered before

	store, err := m.bring(ctx, db)
	if err != nil {
		return nil, err
	}
	return &store, nil
}

// A schema is the versioned tables of one database.
type schema interface {
	Up(ctx context.Context) ([]migrations.Version, error)
	Status(ctx context.Context) ([]migrations.Version, error)
	Database() string
}

// bring applies what is pending, if that is wanted, and reports the state after it.
func (m *migration) bring(ctx context.Context, db schema) (migratedStore, error) {
	var applied []migrations.Version
	if m.create {
		var err error
		if applied, err = db.Up(ctx); err != nil {
			return migratedStore{}, err
		}
	}
	versions, err := db.Status(ctx)
	if err != nil {
		return migratedStore{}, err
	}
	return storeOf(db.Database(), versions, applied), nil
}

func (m *migration) topics(ctx context.Context) ([]topic.Report, error) {
	client, done, err := m.cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	defer done()
	wanted := topic.All(topic.Settings{
		Prefix:      m.cfg.TopicPrefix,
		Partitions:  m.cfg.TopicPartitions,
		Replication: m.cfg.TopicReplication,
	})
	var reports []topic.Report
	err = m.reach(ctx, func(ctx context.Context) error {
		reports, err = topic.Inspect(ctx, client, wanted)
		if err != nil {
			return fmt.Errorf("reach Kafka at %s: %w", strings.Join(m.cfg.KafkaBrokers, ","), err)
		}
		return nil
	})
	if err != nil || !m.create {
		return reports, err
	}
	return topic.Ensure(ctx, client, wanted)
}

// reach tries until the store answers or the deadline is over. An answer, also an error the store itself has sent,
// is final.
func (m *migration) reach(ctx context.Context, try func(context.Context) error) error {
	pause := backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(2*time.Second),
		backoff.WithMaxElapsedTime(0))
	return backoff.Retry(func() error {
		attempt, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		err := try(attempt)
		if err != nil && (!unreachable(err) || !time.Now().Before(m.deadline)) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(pause, ctx))
}

// unreachable reports whether an error may go away once the store has started.
func unreachable(err error) bool {
	var answer *clickhouse.Exception
	if errors.As(err, &answer) || errors.Is(err, migrations.ErrNoDatabase) {
		return false // the server itself has said it
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return postgres.Classify(err) == postgres.Transient
	}
	var refused kafka.Error
	if errors.As(err, &refused) {
		return refused.Temporary()
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)
}

func (f *migrated) table() *table {
	t := &table{head: []string{"store", "what", "state", "detail"}}
	if f.Postgres != nil {
		f.Postgres.add(t, "postgres")
		for _, tier := range f.Postgres.Tiers {
			t.add("postgres", "tier "+tier.Tier, tier.State, "database "+f.Postgres.Database)
		}
		if f.Postgres.Tenants != nil {
			f.Postgres.Tenants.add(t, f.Postgres.Database)
		}
	}
	if f.ClickHouse != nil {
		f.ClickHouse.add(t, "clickhouse")
	}
	for _, r := range f.Topics {
		detail := "-"
		if r.Partitions > 0 {
			detail = fmt.Sprintf("%d partitions, %d copies", r.Partitions, r.Replication)
		}
		t.add("kafka", r.Topic, string(r.State), detail)
		for _, problem := range r.Problems {
			t.add("", "", "  problem", problem)
		}
		for _, note := range r.Notes {
			t.add("", "", "  note", note)
		}
	}
	return t
}

func (s *migratedStore) add(t *table, name string) {
	for _, v := range s.Versions {
		detail := "database " + s.Database
		if v.Applied != nil {
			detail += ", " + v.Applied.Format(time.RFC3339)
		}
		t.add(name, v.Name, v.State, detail)
	}
}

// verdict is an error if an operator has to act.
func (f *migrated) verdict(status bool) error {
	pending, missing, wrong := 0, 0, 0
	if f.Postgres != nil {
		pending += f.Postgres.pending()
	}
	if f.ClickHouse != nil {
		pending += f.ClickHouse.pending()
	}
	for _, r := range f.Topics {
		switch r.State {
		case topic.Missing:
			missing++
		case topic.Wrong:
			wrong++
		case topic.Created, topic.Exists:
		}
	}
	var problems []error
	if pending > 0 {
		problems = append(problems, fmt.Errorf("%d migrations are pending", pending))
	}
	if f.Postgres != nil {
		if n := f.Postgres.pendingTiers(); n > 0 {
			problems = append(problems, fmt.Errorf("%d tiers are not as in the catalogue", n))
		}
		if err := f.Postgres.Tenants.problem(); err != nil {
			problems = append(problems, err)
		}
	}
	if missing > 0 {
		problems = append(problems, fmt.Errorf("%d topics are missing", missing))
	}
	if len(problems) > 0 && status {
		problems = append(problems, errors.New(`run "tenantflow migrate"`))
	}
	if wrong > 0 {
		problems = append(problems, fmt.Errorf("%d topics are set up so that events can be lost; migrate changes no topic that exists, an operator must", wrong))
	}
	return errors.Join(problems...)
}
