// Package schemas holds the JSON Schema (draft 2020-12) of every event type, for this service and for the services
// that write or read its topics. The files are the published form: `<type>.schema.json`, each complete in itself.
package schemas

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.schema.json
var files embed.FS

const suffix = ".schema.json"

// FileName is the name of the file that holds the schema of a type.
func FileName(eventType string) string { return eventType + suffix }

// ByType gives the text of the schema of a type. The error means that there is none.
func ByType(eventType string) ([]byte, error) {
	text, err := files.ReadFile(FileName(eventType))
	if err != nil {
		return nil, fmt.Errorf("no schema for event type %q: %w", eventType, err)
	}
	return text, nil
}

// Types lists the types that have a schema, sorted.
func Types() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil // the directory is embedded: it cannot be missing
	}
	types := make([]string, 0, len(entries))
	for _, entry := range entries {
		types = append(types, strings.TrimSuffix(entry.Name(), suffix))
	}
	return types
}
