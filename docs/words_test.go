// Package docs_test checks the words of the documents, the alerts and the schemas. .golangci.yml has the same list for Go.
package docs_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// banned are words and phrases that the project's texts do without; docs/glossary.md has the ones it uses.
var banned = regexp.MustCompile(`(?i)\b(anew|everybody|nobody|somebody|whoever|his|him|time of grace)\b`)

// texts are the files that people read. Migrations are left out: one that exists does not change.
var texts = map[string]bool{".md": true, ".yml": true, ".yaml": true, ".json": true, ".sql": true, ".lua": true}

// Left out: what is installed or built, the list of the words itself, and migrations.
var left = map[string]bool{".git": true, ".local": true, "node_modules": true, "testdata": true, "dist": true, "fixtures": true,
	".golangci.yml": true, "migrations": true}

func TestWords_TextsDoWithoutTheBanned(t *testing.T) {
	t.Parallel()
	read := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case left[d.Name()] && d.IsDir():
			return filepath.SkipDir
		case left[d.Name()] || d.IsDir() || !texts[filepath.Ext(path)]:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		read++
		for i, line := range bytes.Split(text, []byte("\n")) {
			if word := banned.Find(line); word != nil {
				t.Errorf("%s:%d has %q: %s", path, i+1, word, line)
			}
		}
		return nil
	})
	if err != nil || read < 30 {
		t.Errorf("%d texts read, want 30 or more; %v", read, err)
	}
}
