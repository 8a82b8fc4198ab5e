package migrations_test

import (
	"os"
	"regexp"
	"testing"
)

func TestTheQueriesInTheDocumentationRun(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/tables.md")
	if err != nil {
		t.Fatal(err)
	}
	queries := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(text, -1)
	if len(queries) < 5 {
		t.Fatalf("only %d queries found", len(queries))
	}
	c := migrated(t)
	for _, query := range queries {
		rows, err := c.DB().QueryContext(t.Context(), string(query[1]))
		if err != nil {
			t.Errorf("%s\n%v", query[1], err)
			continue
		}
		for rows.Next() {
		}
		if err := rows.Err(); err != nil {
			t.Errorf("%s\n%v", query[1], err)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
}
