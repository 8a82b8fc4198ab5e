package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/pressly/goose/v3"
)

// ClickHouse migrates one ClickHouse database.
type ClickHouse struct {
	db       *sql.DB
	database string
	provider *goose.Provider
}

// OpenClickHouse connects to the database that the options name (default: tenantflow). It makes the database if it is
// missing only when create is true; otherwise a missing database is ErrNoDatabase. Close the result.
func OpenClickHouse(ctx context.Context, options *clickhouse.Options, create bool) (*ClickHouse, error) {
	own := *options
	if own.Auth.Database == "" {
		own.Auth.Database = DefaultDatabase
	}
	name := own.Auth.Database
	if err := ensureDatabase(ctx, own, create); err != nil {
		return nil, err
	}

	db := clickhouse.OpenDB(&own)
	folder, err := fs.Sub(files, "clickhouse")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the embedded ClickHouse migrations: %w", err), db.Close())
	}
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, folder, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the embedded ClickHouse migrations: %w", err), db.Close())
	}
	return &ClickHouse{db: db, database: name, provider: provider}, nil
}

// DefaultDatabase is used when the options name no database.
const DefaultDatabase = "tenantflow"

// ErrNoDatabase is returned when the database of the options does not exist and was not to be created.
var ErrNoDatabase = errors.New("the database does not exist")

// ensureDatabase connects without a database, because a connection to one that is missing is refused.
func ensureDatabase(ctx context.Context, options clickhouse.Options, create bool) error {
	name := options.Auth.Database
	options.Auth.Database = "default"
	db := clickhouse.OpenDB(&options)
	defer db.Close()

	var found uint64
	if err := db.QueryRowContext(ctx, "SELECT count() FROM system.databases WHERE name = ?", name).Scan(&found); err != nil {
		return fmt.Errorf("reach ClickHouse at %s: %w", strings.Join(options.Addr, ","), err)
	}
	switch {
	case found > 0:
		return nil
	case !create:
		return fmt.Errorf("open ClickHouse database %q: %w", name, ErrNoDatabase)
	}
	if _, err := db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteIdentifier(name)); err != nil {
		return fmt.Errorf("create ClickHouse database %q: %w", name, err)
	}
	return nil
}

func quoteIdentifier(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// Database returns the name of the database that is migrated.
func (c *ClickHouse) Database() string { return c.database }

// DB returns the connection, for callers that look at the result. It is closed by Close.
func (c *ClickHouse) DB() *sql.DB { return c.db }

// Up applies what is pending, in order, and returns what it applied: nothing when the database is up to date.
// It stops at the first version that fails. Applying is repeatable: a version that was cut off half way, or
// applied by two processes at once, ends the same.
func (c *ClickHouse) Up(ctx context.Context) ([]Version, error) {
	results, err := c.provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results = partial.Applied
	}
	applied := make([]Version, 0, len(results))
	for _, r := range results {
		applied = append(applied, Version{Version: r.Source.Version, Name: fileName(r.Source.Path), Applied: time.Now().UTC()})
	}
	if err != nil {
		return applied, fmt.Errorf("migrate ClickHouse database %q: %w", c.database, err)
	}
	return applied, nil
}

// Status returns all versions this binary knows, oldest first.
func (c *ClickHouse) Status(ctx context.Context) ([]Version, error) {
	statuses, err := c.provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the versions of ClickHouse database %q: %w", c.database, err)
	}
	versions := make([]Version, 0, len(statuses))
	for _, s := range statuses {
		v := Version{Version: s.Source.Version, Name: fileName(s.Source.Path)}
		if s.State == goose.StateApplied {
			v.Applied = s.AppliedAt.UTC()
		}
		versions = append(versions, v)
	}
	return versions, nil
}

// Close closes the connections. It is not needed after an error of OpenClickHouse.
func (c *ClickHouse) Close() error { return c.db.Close() }

// ClickHouseVersions lists the versions this binary brings, all of them pending: the status of a database that does
// not exist yet.
func ClickHouseVersions() ([]Version, error) { return embedded("clickhouse") }

func fileName(path string) string {
	return path[strings.LastIndexByte(path, '/')+1:]
}
