package verify

import (
	"embed"
	"strings"
	"text/template"
)

//go:embed queries/*.sql
var queries embed.FS

var statements = template.Must(template.ParseFS(queries, "queries/*.sql"))

// statement is a statement of the folder queries, filled in.
func statement(name string, with any) string {
	var text strings.Builder
	if err := statements.ExecuteTemplate(&text, name+".sql", with); err != nil {
		panic(err) // it is embedded, and every caller has a test
	}
	return text.String()
}
