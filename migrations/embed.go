// Package migrations holds the schema of the stores and brings a store up to it.
//
// The SQL files are embedded, so the binary carries them. Each store has a folder; a file is one version, applied
// once and recorded in the store itself (table goose_db_version). Versions only go up.
package migrations

import "embed"

//go:embed clickhouse/*.sql
var files embed.FS
