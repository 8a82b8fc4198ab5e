package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"tenantflow/internal/certs"
)

// Postgres migrates one Postgres database.
type Postgres struct {
	db       *sql.DB
	database string
	config   *pgx.ConnConfig // of db, for connections beside it
	provider *goose.Provider
}

// OpenPostgres connects to the database of the configuration. It makes the database if it is missing only when create
// is true; otherwise a missing database is ErrNoDatabase. Close the result.
func OpenPostgres(ctx context.Context, cfg *pgx.ConnConfig, create bool) (*Postgres, error) {
	own := cfg.Copy()
	if own.Database == "" {
		own.Database = own.User // what the server would take
	}
	// goose records when it applied a version in a column without a time zone.
	own.RuntimeParams["timezone"] = "UTC"
	if err := ensurePostgres(ctx, own, create); err != nil {
		return nil, err
	}

	folder, err := fs.Sub(files, "postgres")
	if err != nil {
		return nil, fmt.Errorf("open the embedded Postgres migrations: %w", err)
	}
	db := stdlib.OpenDB(*own)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, folder,
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(postgresVersions))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the embedded Postgres migrations: %w", err), db.Close())
	}
	return &Postgres{db: db, database: own.Database, config: own, provider: provider}, nil
}

const (
	// postgresVersions is the table in which goose keeps what it has applied.
	postgresVersions = "public.goose_db_version"
	// migrationLock is the table whose one row is locked by the one migration at a time in its database. Not an advisory lock: its key
	// could be guessed, and taken by every login.
	migrationLock = "public.migration_lock"
	// oldestPostgres is the first major version that the migrations are made for.
	oldestPostgres = 15
)

// SQLSTATE codes. Source: PostgreSQL's documentation, appendix A.
const (
	stateNoDatabase     = "3D000"
	stateDatabaseExists = "42P04"
	stateUniqueKey      = "23505"
	stateTableExists    = "42P07"
	stateTypeExists     = "42710"
)

// ensurePostgres connects once, and makes the database if it may.
func ensurePostgres(ctx context.Context, cfg *pgx.ConnConfig, create bool) error {
	err := checkPostgresVersion(ctx, cfg)
	if state(err) != stateNoDatabase {
		return err
	}
	if !create {
		return fmt.Errorf("open Postgres database %q: %w", cfg.Database, ErrNoDatabase)
	}
	server := cfg.Copy()
	server.Database = "postgres" // there on every server, for this purpose
	conn, err := pgx.ConnectConfig(ctx, server)
	if err != nil {
		return fmt.Errorf("create Postgres database %q: reach the server: %w", cfg.Database, err)
	}
	defer func() { _ = conn.Close(ctx) }() // everything was answered before
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{cfg.Database}.Sanitize())
	// Two processes at once: the second one gets one of two errors.
	if s := state(err); err != nil && s != stateDatabaseExists && s != stateUniqueKey {
		return fmt.Errorf("create Postgres database %q (an administrator can do that as well, owned by user %s): %w", cfg.Database, cfg.User, err)
	}
	return checkPostgresVersion(ctx, cfg)
}

func checkPostgresVersion(ctx context.Context, cfg *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("reach Postgres at %s:%d: %w", cfg.Host, cfg.Port, certs.ExplainPostgres(err))
	}
	defer func() { _ = conn.Close(ctx) }()
	var number int
	var name string
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_version')").Scan(&number, &name); err != nil {
		return fmt.Errorf("ask Postgres at %s:%d for its version: %w", cfg.Host, cfg.Port, err)
	}
	if number/10000 < oldestPostgres {
		return fmt.Errorf("open Postgres database %q: Postgres %d or newer is needed, the server is %s", cfg.Database, oldestPostgres, name)
	}
	return nil
}

// state is the SQLSTATE of an error the server has sent; empty for any other.
func state(err error) string {
	var sent *pgconn.PgError
	if errors.As(err, &sent) {
		return sent.Code
	}
	return ""
}

// Database returns the name of the database that is migrated.
func (p *Postgres) Database() string { return p.database }

// DB returns the connection, for callers that look at the result. It is closed by Close.
func (p *Postgres) DB() *sql.DB { return p.db }

// Up applies what is pending, in order, and returns what it applied: nothing when the database is up to date. It stops
// at the first version that fails, of which nothing stays. Of several processes at once, one goes first. The companies'
// own tables are not changed by it: only their versions are brought to the database.
func (p *Postgres) Up(ctx context.Context) ([]Version, error) {
	var applied []Version
	err := p.alone(ctx, func() error {
		results, err := p.provider.Up(ctx)
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			results = partial.Applied
		}
		for _, r := range results {
			applied = append(applied, Version{Version: r.Source.Version, Name: fileName(r.Source.Path), Applied: time.Now().UTC()})
		}
		if err != nil {
			return err
		}
		return p.recordTenantVersions(ctx)
	})
	if err != nil {
		return applied, fmt.Errorf("migrate Postgres database %q: %w", p.database, err)
	}
	return applied, nil
}

// alone calls do while it holds the lock of migrations. The lock belongs to a transaction, so it can't outlive this
// process, nor stay behind on a connection of a pooler.
func (p *Postgres) alone(ctx context.Context, do func() error) error {
	if err := p.makeLock(ctx); err != nil {
		return fmt.Errorf("make the lock of migrations: %w", err)
	}
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it has written nothing
	if _, err := tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		// Tried, not waited for: a statement that waits keeps its snapshot, and an index that is built concurrently
		// waits for all snapshots to go.
		var got int
		err := tx.QueryRowContext(ctx, "SELECT 1 FROM "+migrationLock+" FOR UPDATE SKIP LOCKED").Scan(&got)
		switch {
		case err == nil:
			return do()
		case !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("take the lock of migrations: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for another process that migrates: %w", context.Cause(ctx))
		}
	}
}

// makeLock makes the table of the lock and its row, if they are missing. It comes before every version, so it is none itself.
func (p *Postgres) makeLock(ctx context.Context) error {
	var there bool
	if err := p.db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", migrationLock).Scan(&there); err != nil {
		return err
	}
	if !there {
		_, err := p.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+migrationLock+" (one boolean PRIMARY KEY CHECK (one)); COMMENT ON TABLE "+migrationLock+
			" IS 'One row, which migrate locks, so that one runs at a time.'")
		// Two processes at once: the second one gets one of three errors, by when the first one commits: before it looks for the table,
		// before it looks for the type of the table's rows, or later.
		if s := state(err); err != nil && s != stateTableExists && s != stateTypeExists && s != stateUniqueKey {
			return err
		}
	}
	_, err := p.db.ExecContext(ctx, "INSERT INTO "+migrationLock+" (one) SELECT true WHERE NOT EXISTS (SELECT FROM "+migrationLock+") ON CONFLICT DO NOTHING")
	return err
}

// Status returns all versions this binary knows, oldest first. It writes nothing.
func (p *Postgres) Status(ctx context.Context) ([]Version, error) {
	versions, err := PostgresVersions()
	if err != nil {
		return nil, err
	}
	applied, err := p.applied(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the versions of Postgres database %q: %w", p.database, err)
	}
	for i := range versions {
		versions[i].Applied = applied[versions[i].Version]
	}
	return versions, nil
}

func (p *Postgres) applied(ctx context.Context) (map[int64]time.Time, error) {
	var there bool
	if err := p.db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", postgresVersions).Scan(&there); err != nil || !there {
		return nil, err
	}
	type version struct {
		VersionID int64
		At        time.Time
	}
	applied := map[int64]time.Time{}
	return applied, p.onConn(ctx, func(conn *pgx.Conn) error {
		rows, err := collect[version](ctx, conn, "SELECT version_id, max(tstamp) AS at FROM "+postgresVersions+" WHERE is_applied GROUP BY version_id")
		for _, v := range rows {
			applied[v.VersionID] = v.At.UTC()
		}
		return err
	})
}

// Close closes the connections. It is not needed after an error of OpenPostgres.
func (p *Postgres) Close() error { return p.db.Close() }

// PostgresVersions lists the versions this binary brings, all of them pending: the status of a database that does not
// exist yet.
func PostgresVersions() ([]Version, error) { return embedded("postgres") }
