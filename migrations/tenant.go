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
var ErrTenantVersionChanged = errors.New("the database has another text of this version")

// recordTenantVersions writes the texts of the tenant versions to public.tenant_migrations, where the functions of the
// database read them. Versions that a newer binary has written stay.
func recordTenantVersions(ctx context.Context, db *sql.DB) error {
	versions, err := TenantVersions()
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("record the versions of the companies' tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	for _, v := range versions {
		text, err := files.ReadFile("tenant/" + v.Name)
		if err != nil {
			return fmt.Errorf("read the embedded version %s of the companies' tables: %w", v.Name, err)
		}
		hash := sha256.Sum256(text)
		checksum := hex.EncodeToString(hash[:])
		if _, err := tx.ExecContext(ctx, `INSERT INTO public.tenant_migrations (version, name, up_sql, checksum)
			VALUES ($1, $2, $3, $4) ON CONFLICT (version) DO NOTHING`, v.Version, v.Name, string(text), checksum); err != nil {
			return fmt.Errorf("record version %s of the companies' tables: %w", v.Name, err)
		}
		var name, there string
		if err := tx.QueryRowContext(ctx, "SELECT name, checksum FROM public.tenant_migrations WHERE version = $1", v.Version).Scan(&name, &there); err != nil {
			return fmt.Errorf("read version %s of the companies' tables: %w", v.Name, err)
		}
		if there != checksum {
			return fmt.Errorf("record version %s of the companies' tables (there as %s): %w", v.Name, name, ErrTenantVersionChanged)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("record the versions of the companies' tables: %w", err)
	}
	return nil
}
