// Package migrations holds the schema of the stores and brings a store up to it.
//
// The SQL files are embedded, so the binary carries them. Each store has a folder; a file is one version, applied
// once and recorded in the store itself (table goose_db_version). Versions only go up.
//
// The folder tenant holds the versions of a company's own tables. Postgres.Up brings their texts to the database, whose
// functions apply them to one company at a time; Postgres.MigrateTenants does so for all.
package migrations

import (
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed clickhouse/*.sql postgres/*.sql tenant/*.sql queries/*.sql
var files embed.FS

// A Version is one migration of a store and its outcome.
type Version struct {
	Version int64
	Name    string // file name without folder
	// Applied is when it was applied, by the store's clock and to the second. It is zero while it is pending.
	Applied time.Time `db:"-"`
}

// Pending says whether the version has not been applied yet.
func (v Version) Pending() bool { return v.Applied.IsZero() }

// embedded lists the versions in a folder, oldest first.
func embedded(folder string) ([]Version, error) {
	entries, err := fs.ReadDir(files, folder)
	if err != nil {
		return nil, fmt.Errorf("list the embedded migrations of %s: %w", folder, err)
	}
	versions := make([]Version, 0, len(entries))
	for _, entry := range entries {
		number, err := goose.NumericComponent(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the version of migration %s: %w", entry.Name(), err)
		}
		versions = append(versions, Version{Version: number, Name: entry.Name()})
	}
	return versions, nil
}
