package chdb_test

import (
	"testing"
	"testing/fstest"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/pressly/goose/v3"
)

func TestGooseMigratesUpAndDown(t *testing.T) {
	t.Parallel()
	db := clickhouse.OpenDB(options(t))
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, fstest.MapFS{
		"00001_table.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (a UInt32, s LowCardinality(String)) ENGINE = MergeTree ORDER BY a;\nINSERT INTO t VALUES (1, 'it''s; one');\n-- +goose Down\nDROP TABLE t;\n")},
		"00002_view.sql":  {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\n-- +goose StatementBegin\nCREATE VIEW v AS\n-- a; comment\nSELECT sum(a) AS n FROM t;\n-- +goose StatementEnd\n-- +goose Down\nDROP VIEW v;\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := provider.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		var n uint64
		if err := db.QueryRowContext(t.Context(), "SELECT n FROM v").Scan(&n); err != nil || n != 1 {
			t.Fatalf("the view says %d, error %v", n, err)
		}
		if version, err := provider.GetDBVersion(t.Context()); err != nil || version != 2 {
			t.Fatalf("version %d, error %v", version, err)
		}
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if version, err := provider.GetDBVersion(t.Context()); err != nil || version != 0 {
		t.Fatalf("version %d after going down, error %v", version, err)
	}
}
