package enginetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PrepareQueries prepares the statement of every .sql file of a folder, so that one that does not fit the tables fails also if no test runs
// it. reads says by the file's name, without its ending, how the rows of a statement with several columns are read: with ByName.
func PrepareQueries(t *testing.T, conn *pgx.Conn, folder string, reads map[string]func(pgx.CollectableRow) error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d statements in %s, %v", len(files), folder, err)
	}
	found := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sql")
		found[name] = true
		text, err := os.ReadFile(file) // #nosec G304 -- a test's own file
		if err != nil {
			t.Fatal(err)
		}
		statement, err := conn.Prepare(t.Context(), name, string(text))
		switch read := reads[name]; {
		case err != nil:
			t.Errorf("%s: %v", file, err)
		case read != nil:
			if err := read(columns(statement.Fields)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		case len(statement.Fields) > 2:
			t.Errorf("%s has %d columns: say which struct they are read into", file, len(statement.Fields))
		}
	}
	for name := range reads {
		if !found[name] {
			t.Errorf("there is no %s.sql in %s", name, folder)
		}
	}
}

// ByName reads a row into a T by the names of its columns.
func ByName[T any](row pgx.CollectableRow) error {
	_, err := pgx.RowToStructByName[T](row)
	return err
}

// columns is a row that has columns and no values.
type columns []pgconn.FieldDescription

// FieldDescriptions gives the columns.
func (c columns) FieldDescriptions() []pgconn.FieldDescription { return c }

// Scan leaves everything as it is.
func (columns) Scan(...any) error { return nil }

// Values gives none.
func (columns) Values() ([]any, error) { return nil, nil }

// RawValues gives none.
func (columns) RawValues() [][]byte { return nil }
