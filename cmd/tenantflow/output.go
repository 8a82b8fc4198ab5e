package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// The values of the -o flag.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// A table is rows under a heading, printed in columns.
type table struct {
	head   []string // nil: no heading
	rows   [][]string
	footer []string // lines behind the rows that have no columns
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// show prints a result as the -o flag says: value as indented JSON, or what the function draws as a table.
func (a *app) show(w io.Writer, value any, draw func() *table) error {
	if a.output == outputJSON {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("writing the result as JSON: %w", err)
		}
		return nil
	}
	t := draw()
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if t.head != nil {
		fmt.Fprintln(tw, strings.ToUpper(strings.Join(t.head, "\t")))
	}
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	for _, line := range t.footer {
		fmt.Fprintln(w, line)
	}
	return nil
}
