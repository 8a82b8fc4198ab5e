package schemas_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"tenantflow/events"
	"tenantflow/schemas"
)

func newDecoder(t *testing.T) *events.Decoder {
	t.Helper()
	d, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEveryTypeOfEveryTopicHasASchemaAndEverySchemaATopic(t *testing.T) {
	t.Parallel()
	var types []string
	for _, topic := range events.Topics() {
		types = append(types, topic.Types...)
	}
	slices.Sort(types)
	types = slices.Compact(types) // a request and its result may have the same
	if got := schemas.Types(); !slices.Equal(got, types) {
		t.Errorf("schemas for\n%q\ntypes of topics\n%q", got, types)
	}
	for _, eventType := range types {
		topic, ok := events.TopicOf(eventType)
		if !ok || !strings.HasSuffix(eventType, ".v1") {
			t.Errorf("%s: topic %q", eventType, topic)
		}
	}
	if _, err := schemas.ByType("../go.mod"); err == nil {
		t.Error("a name that is no type has a schema")
	}
}

func TestSchemasAreDraft202012AndRefuseNoUnknownField(t *testing.T) {
	t.Parallel()
	for _, eventType := range schemas.Types() {
		text, err := schemas.ByType(eventType)
		if err != nil {
			t.Fatal(err)
		}
		var schema map[string]any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatalf("%s: %v", eventType, err)
		}
		if schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" || schema["title"] != eventType || schema["description"] == nil {
			t.Errorf("%s: $schema %v, title %v, description %v", eventType, schema["$schema"], schema["title"], schema["description"])
		}
		if strings.Contains(string(text), `"additionalProperties": false`) || strings.Contains(string(text), `"unevaluatedProperties": false`) {
			t.Errorf("%s refuses unknown fields", eventType)
		}
	}
}

func TestValidFixturesAreAccepted(t *testing.T) {
	t.Parallel()
	decoder, fixtures := newDecoder(t), os.DirFS("fixtures")
	for _, eventType := range schemas.Types() {
		files := glob(t, fixtures, eventType+"/valid/*.json")
		if len(files) < 2 {
			t.Errorf("%s has %d valid fixtures", eventType, len(files))
		}
		for _, file := range files {
			if err := decoder.CheckData(eventType, read(t, fixtures, file)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// The name of an invalid fixture is <field>--<what is wrong with it>.json.
func TestInvalidFixturesAreRefusedForTheFieldTheyAreNamedAfter(t *testing.T) {
	t.Parallel()
	decoder, fixtures := newDecoder(t), os.DirFS("fixtures")
	for _, eventType := range schemas.Types() {
		files := glob(t, fixtures, eventType+"/invalid/*.json")
		for _, file := range files {
			err := decoder.CheckData(eventType, read(t, fixtures, file))
			var rejection *events.Rejection
			if !errors.As(err, &rejection) || rejection.Reason != events.InvalidData {
				t.Errorf("%s: %v, want invalid_data", file, err)
				continue
			}
			field, _, _ := strings.Cut(path.Base(file), "--")
			if field != "data" && !strings.Contains(rejection.Detail, field) {
				t.Errorf("%s is refused for something else: %s", file, rejection.Detail)
			}
		}
		for _, field := range requiredFields(t, eventType) {
			if !slices.Contains(files, eventType+"/invalid/"+field+"--missing.json") {
				t.Errorf("no fixture of %s without its required field %s", eventType, field)
			}
		}
	}
}

func requiredFields(t *testing.T, eventType string) []string {
	t.Helper()
	text, err := schemas.ByType(eventType)
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Required []string `json:"required"`
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	return schema.Required
}

// Events that were valid once are in topics, dead letters and files. What is listed in frozen.sha256 never changes and
// never goes: a schema that would refuse one of them needs a new type version, with fixtures of its own.
func TestFixturesAreFrozen(t *testing.T) {
	t.Parallel()
	for _, problem := range thawed(t, os.DirFS("fixtures")) {
		t.Error(problem)
	}
}

// thawed compares the fixtures with their list.
func thawed(t *testing.T, fixtures fs.FS) []string {
	t.Helper()
	var problems []string
	listed := map[string]bool{}
	for line := range strings.Lines(string(read(t, fixtures, "frozen.sha256"))) {
		sum, file, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok || listed[file] {
			problems = append(problems, fmt.Sprintf("frozen.sha256: line %q", line))
			continue
		}
		listed[file] = true
		text, err := fs.ReadFile(fixtures, file)
		if err != nil {
			problems = append(problems, fmt.Sprintf("a frozen fixture is gone: %v", err))
			continue
		}
		if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
			problems = append(problems, "a frozen fixture has changed: "+file)
		}
	}
	for _, file := range glob(t, fixtures, "*/*/*.json") {
		if !listed[file] {
			problems = append(problems, fmt.Sprintf("%s is not frozen: in schemas/fixtures, append the line of sha256sum %s to frozen.sha256", file, file))
		}
	}
	return problems
}

func TestAChangedDeletedOrUnlistedFixtureIsNoticed(t *testing.T) {
	t.Parallel()
	text := []byte(`{"a":1}`)
	sum := sha256.Sum256(text)
	list := hex.EncodeToString(sum[:]) + "  x.v1/valid/a.json\n"
	frozen := func() fstest.MapFS {
		return fstest.MapFS{"x.v1/valid/a.json": {Data: text}, "frozen.sha256": {Data: []byte(list)}}
	}
	if problems := thawed(t, frozen()); len(problems) > 0 {
		t.Errorf("unchanged: %q", problems)
	}
	changed := frozen()
	changed["x.v1/valid/a.json"].Data = []byte(`{"a":2}`)
	deleted := frozen()
	delete(deleted, "x.v1/valid/a.json")
	unlisted := frozen()
	unlisted["x.v1/valid/b.json"] = &fstest.MapFile{Data: text}
	for name, fixtures := range map[string]fstest.MapFS{"changed": changed, "deleted": deleted, "unlisted": unlisted} {
		if problems := thawed(t, fixtures); len(problems) != 1 {
			t.Errorf("%s: %q", name, problems)
		}
	}
}

// The fixtures hold more than the schema asks for, so that a field that becomes required, or narrower, is noticed: one
// valid fixture has nothing but the required fields and one has unknown fields.
func TestFixturesWouldNoticeAStricterSchema(t *testing.T) {
	t.Parallel()
	fixtures := os.DirFS("fixtures")
	for _, eventType := range schemas.Types() {
		optional := map[string]bool{}
		text, err := schemas.ByType(eventType)
		if err != nil {
			t.Fatal(err)
		}
		var schema struct {
			Properties map[string]json.RawMessage `json:"properties"`
		}
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		for name := range schema.Properties {
			optional[name] = true
		}
		for _, name := range requiredFields(t, eventType) {
			delete(optional, name)
		}
		unknown := false
		for _, file := range glob(t, fixtures, eventType+"/valid/*.json") {
			var data map[string]json.RawMessage
			if err := json.NewDecoder(bytes.NewReader(read(t, fixtures, file))).Decode(&data); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for name := range optional {
				if _, ok := data[name]; !ok {
					delete(optional, name)
				}
			}
			for name := range data {
				if _, ok := schema.Properties[name]; !ok {
					unknown = true
				}
			}
		}
		if len(optional) > 0 || !unknown {
			t.Errorf("%s: no valid fixture is without %v, or none has an unknown field (%v)", eventType, optional, unknown)
		}
	}
}

func glob(t *testing.T, fsys fs.FS, pattern string) []string {
	t.Helper()
	files, err := fs.Glob(fsys, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func read(t *testing.T, fsys fs.FS, name string) []byte {
	t.Helper()
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
