package totals

import (
	"embed"
	"strconv"
	"strings"
	"text/template"
)

//go:embed queries/*.sql
var queries embed.FS

var statements = template.Must(template.New("").Funcs(template.FuncMap{"each": each}).ParseFS(queries, "queries/*.sql"))

// statement is a statement of the folder queries, filled in.
func statement(name string, with any) string {
	var text strings.Builder
	if err := statements.ExecuteTemplate(&text, name+".sql", with); err != nil {
		panic(err) // it is embedded, and every caller has a test
	}
	return text.String()
}

// each writes an expression for every column, with its number from 0 for {i}, its name for {name}, its expression over rows for {row}, and
// this under its name for {named}.
func each(columns []column, separator, expression string) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = strings.NewReplacer("{i}", strconv.Itoa(i), "{name}", c.name, "{row}", c.row, "{named}", c.named()).Replace(expression)
	}
	return strings.Join(all, separator)
}
