package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
)

// TenantVersions lists the versions of a company's tables this binary brings, oldest first, all of them pending.
func TenantVersions() ([]Version, error) { return embedded("tenant") }

// ErrTenantVersionChanged is returned when the database holds another text of a version than this binary. Companies may
// have the tables of the other text: a change has to be a new version.
var ErrTenantVersionChanged = errors.New("the database has another text of this version of the companies' tables")

// A tenantText is one version of the companies' tables as this binary has it.
type tenantText struct {
	Version
	sql, checksum string
}

func tenantTexts() ([]tenantText, error) {
	versions, err := TenantVersions()
	if err != nil {
		return nil, err
	}
	texts := make([]tenantText, 0, len(versions))
	for _, v := range versions {
		text, err := files.ReadFile("tenant/" + v.Name)
		if err != nil {
			return nil, fmt.Errorf("read the embedded version %s of the companies' tables: %w", v.Name, err)
		}
		hash := sha256.Sum256(text)
		texts = append(texts, tenantText{Version: v, sql: string(text), checksum: hex.EncodeToString(hash[:])})
	}
	return texts, nil
}

// recordTenantVersions writes the texts of the versions to public.tenant_migrations, where the functions of the database
// read them. Versions that a newer binary has written stay.
func (p *Postgres) recordTenantVersions(ctx context.Context) error {
	texts, err := tenantTexts()
	if err != nil {
		return err
	}
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("record the versions of the companies' tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	missing, _, err := compareTenantVersions(ctx, tx, texts)
	if err != nil {
		return err
	}
	for _, t := range missing {
		if _, err := tx.ExecContext(ctx, "INSERT INTO public.tenant_migrations (version, name, up_sql, checksum) VALUES ($1, $2, $3, $4)",
			t.Version.Version, t.Name, t.sql, t.checksum); err != nil {
			return fmt.Errorf("record version %s of the companies' tables: %w", t.Name, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("record the versions of the companies' tables: %w", err)
	}
	return nil
}

// compareTenantVersions returns the texts the database does not have yet, and its newest version.
func compareTenantVersions(ctx context.Context, tx *sql.Tx, texts []tenantText) (missing []tenantText, newest int64, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT version, name, checksum FROM public.tenant_migrations")
	if err != nil {
		return nil, 0, fmt.Errorf("read the versions of the companies' tables: %w", err)
	}
	defer rows.Close()
	type recorded struct{ name, checksum string }
	there := map[int64]recorded{}
	for rows.Next() {
		var version int64
		var r recorded
		if err := rows.Scan(&version, &r.name, &r.checksum); err != nil {
			return nil, 0, fmt.Errorf("read a version of the companies' tables: %w", err)
		}
		there[version] = r
		newest = max(newest, version)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read the versions of the companies' tables: %w", err)
	}
	for _, t := range texts {
		switch r, ok := there[t.Version.Version]; {
		case !ok:
			missing = append(missing, t)
		case r.checksum != t.checksum:
			return nil, 0, fmt.Errorf("compare %s with %s in public.tenant_migrations: %w", t.Name, r.name, ErrTenantVersionChanged)
		}
	}
	return missing, newest, nil
}

// TenantStatus is how far the companies' tables are.
type TenantStatus struct {
	// Newest is the newest version, of this binary or of the database.
	Newest int64
	// Unrecorded are versions of this binary that the database does not know yet. Up brings them.
	Unrecorded []Version
	Companies  int64 // that have a schema
	Behind     int64 // companies whose tables are older than Newest
}

// TenantStatus counts the companies whose tables are not of the newest version. In a database that Up has not been run on
// it finds no companies.
func (p *Postgres) TenantStatus(ctx context.Context) (TenantStatus, error) {
	texts, err := tenantTexts()
	if err != nil {
		return TenantStatus{}, err
	}
	tx, err := p.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return TenantStatus{}, fmt.Errorf("count the companies of Postgres database %q: %w", p.database, err)
	}
	defer func() { _ = tx.Rollback() }() // it has written nothing
	var s TenantStatus
	var there bool
	if err := tx.QueryRowContext(ctx, "SELECT to_regclass('public.tenant_schema_versions') IS NOT NULL").Scan(&there); err != nil {
		return TenantStatus{}, fmt.Errorf("count the companies of Postgres database %q: %w", p.database, err)
	}
	missing := texts
	if there {
		if missing, s.Newest, err = compareTenantVersions(ctx, tx, texts); err != nil {
			return TenantStatus{}, err
		}
	}
	for _, t := range missing {
		s.Unrecorded = append(s.Unrecorded, t.Version)
		s.Newest = max(s.Newest, t.Version.Version)
	}
	if there {
		if err := tx.QueryRowContext(ctx, query("tenants_status"), s.Newest).Scan(&s.Companies, &s.Behind); err != nil {
			return TenantStatus{}, fmt.Errorf("count the companies of Postgres database %q: %w", p.database, err)
		}
	}
	return s, nil
}

// query is a statement of the folder queries.
func query(name string) string {
	text, err := files.ReadFile("queries/" + name + ".sql")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(text)
}

// RecordedTenantVersions lists the versions of the companies' tables that the database knows, oldest first: those of this
// binary, and newer ones if a newer binary has been here.
func (p *Postgres) RecordedTenantVersions(ctx context.Context) ([]Version, error) {
	rows, err := p.db.QueryContext(ctx, "SELECT version, name FROM public.tenant_migrations ORDER BY version")
	if err != nil {
		return nil, fmt.Errorf("list the versions of the companies' tables: %w", err)
	}
	defer rows.Close()
	var all []Version
	for rows.Next() {
		var v Version
		if err := rows.Scan(&v.Version, &v.Name); err != nil {
			return nil, fmt.Errorf("read a version of the companies' tables: %w", err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list the versions of the companies' tables: %w", err)
	}
	return all, nil
}
