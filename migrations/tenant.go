package migrations

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
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
	err = p.onConn(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			missing, _, err := compareTenantVersions(ctx, tx, texts)
			if err != nil {
				return err
			}
			for _, t := range missing {
				if _, err := tx.Exec(ctx, "INSERT INTO public.tenant_migrations (version, name, up_sql, checksum) VALUES ($1, $2, $3, $4)",
					t.Version.Version, t.Name, t.sql, t.checksum); err != nil {
					return fmt.Errorf("record version %s: %w", t.Name, err)
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("record the versions of the companies' tables: %w", err)
	}
	return nil
}

// compareTenantVersions returns the texts the database does not have yet, and its newest version.
func compareTenantVersions(ctx context.Context, tx pgx.Tx, texts []tenantText) (missing []tenantText, newest int64, err error) {
	type recorded struct {
		Version        int64
		Name, Checksum string
	}
	rows, err := collect[recorded](ctx, tx, "SELECT version, name, checksum FROM public.tenant_migrations")
	if err != nil {
		return nil, 0, fmt.Errorf("read the versions of the companies' tables: %w", err)
	}
	there := map[int64]recorded{}
	for _, r := range rows {
		there[r.Version] = r
		newest = max(newest, r.Version)
	}
	for _, t := range texts {
		switch r, ok := there[t.Version.Version]; {
		case !ok:
			missing = append(missing, t)
		case r.Checksum != t.checksum:
			return nil, 0, fmt.Errorf("compare %s with %s in public.tenant_migrations: %w", t.Name, r.Name, ErrTenantVersionChanged)
		}
	}
	return missing, newest, nil
}

// TenantStatus is how far the companies' tables are.
type TenantStatus struct {
	// Newest is the newest version, of this binary or of the database.
	Newest int64 `db:"-"`
	// Unrecorded are versions of this binary that the database does not know yet. Up brings them.
	Unrecorded []Version `db:"-"`
	Companies  int64     // that have a schema
	Behind     int64     // companies whose tables are older than Newest
}

// TenantStatus counts the companies whose tables are not of the newest version. In a database that Up has not been run on
// it finds no companies.
func (p *Postgres) TenantStatus(ctx context.Context) (TenantStatus, error) {
	texts, err := tenantTexts()
	if err != nil {
		return TenantStatus{}, err
	}
	var s TenantStatus
	err = p.onConn(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			s, err = tenantStatus(ctx, tx, texts)
			return err
		})
	})
	if err != nil {
		return TenantStatus{}, fmt.Errorf("count the companies of Postgres database %q: %w", p.database, err)
	}
	return s, nil
}

func tenantStatus(ctx context.Context, tx pgx.Tx, texts []tenantText) (s TenantStatus, err error) {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('public.tenant_schema_versions') IS NOT NULL").Scan(&there); err != nil {
		return s, err
	}
	missing, newest := texts, int64(0)
	if there {
		if missing, newest, err = compareTenantVersions(ctx, tx, texts); err != nil {
			return s, err
		}
	}
	var unrecorded []Version
	for _, t := range missing {
		unrecorded = append(unrecorded, t.Version)
		newest = max(newest, t.Version.Version)
	}
	if there {
		s, err = collectOne[TenantStatus](ctx, tx, query("tenants_status"), newest)
	}
	s.Newest, s.Unrecorded = newest, unrecorded
	return s, err
}

// RecordedTenantVersions lists the versions of the companies' tables that the database knows, oldest first: those of this
// binary, and newer ones if a newer binary has been here.
func (p *Postgres) RecordedTenantVersions(ctx context.Context) (all []Version, err error) {
	err = p.onConn(ctx, func(conn *pgx.Conn) error {
		all, err = collect[Version](ctx, conn, "SELECT version, name FROM public.tenant_migrations ORDER BY version")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the versions of the companies' tables: %w", err)
	}
	return all, nil
}
