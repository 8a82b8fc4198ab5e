package schemas_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.yaml.in/yaml/v3"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/topic"
	"tenantflow/schemas"
)

// What the document has beside the types of events.
const (
	deadLetter         = "deadLetter"
	deadLetterTooLarge = "deadLetterTooLarge"
	tombstone          = "company.config.tombstone"
)

type reference struct {
	Ref string `yaml:"$ref"`
}

// A document holds the parts of asyncapi.yaml that the tests check; tree is all of it.
type document struct {
	Channels map[string]struct {
		Address  string               `yaml:"address"`
		Messages map[string]reference `yaml:"messages"`
		Bindings struct {
			Kafka struct {
				Topic      string         `yaml:"topic"`
				Partitions int            `yaml:"partitions"`
				Replicas   int            `yaml:"replicas"`
				Config     map[string]any `yaml:"topicConfiguration"`
			} `yaml:"kafka"`
		} `yaml:"bindings"`
	} `yaml:"channels"`
	Operations map[string]struct {
		Action   string      `yaml:"action"`
		Channel  reference   `yaml:"channel"`
		Messages []reference `yaml:"messages"`
		Bindings struct {
			Kafka struct {
				GroupID struct {
					Const string `yaml:"const"`
				} `yaml:"groupId"`
			} `yaml:"kafka"`
		} `yaml:"bindings"`
	} `yaml:"operations"`
	Components struct {
		Messages map[string]message `yaml:"messages"`
		Schemas  map[string]struct {
			Required   []string       `yaml:"required"`
			Properties map[string]any `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`

	tree any
}

type message struct {
	Name    string      `yaml:"name"`
	Summary string      `yaml:"summary"`
	Traits  []reference `yaml:"traits"`
	Headers struct {
		Properties map[string]struct {
			Const string `yaml:"const"`
		} `yaml:"properties"`
	} `yaml:"headers"`
	Payload  reference `yaml:"payload"`
	Examples []struct {
		Headers map[string]string `yaml:"headers"`
		Payload any               `yaml:"payload"`
	} `yaml:"examples"`
}

func asyncAPI(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	for _, into := range []any{&d, &d.tree} {
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func TestTheDocumentHasAChannelForEveryTopicAndNoOther(t *testing.T) {
	t.Parallel()
	d := asyncAPI(t)
	want := map[string][]string{}
	for _, info := range events.Topics() {
		want[info.Name] = slices.Sorted(slices.Values(info.Types))
		if info.Name == events.TopicCompanyConfig {
			want[info.Name] = slices.Sorted(slices.Values(append(info.Types, tombstone)))
		}
		if info.Input {
			want[events.DeadLetterTopic(info.Name)] = []string{deadLetter, deadLetterTooLarge}
		}
	}
	if got := sortedKeys(d.Channels); !slices.Equal(got, sortedKeys(want)) {
		t.Errorf("channels\n%q\ntopics\n%q", got, sortedKeys(want))
	}
	for name, channel := range d.Channels {
		if channel.Address != name || channel.Bindings.Kafka.Topic != name {
			t.Errorf("%s has the address %q and the topic %q", name, channel.Address, channel.Bindings.Kafka.Topic)
		}
		if got := sortedKeys(channel.Messages); !slices.Equal(got, want[name]) {
			t.Errorf("%s: messages\n%q\ntypes\n%q", name, got, want[name])
		}
		for key, m := range channel.Messages {
			if m.Ref != "#/components/messages/"+key {
				t.Errorf("%s: the message %s is %s", name, key, m.Ref)
			}
		}
	}
}

func TestTheDocumentHasAMessageForEveryTypeAndNoOther(t *testing.T) {
	t.Parallel()
	d := asyncAPI(t)
	want := append(schemas.Types(), deadLetter, deadLetterTooLarge, tombstone)
	slices.Sort(want)
	if got := sortedKeys(d.Components.Messages); !slices.Equal(got, want) {
		t.Errorf("messages\n%q\ntypes\n%q", got, want)
	}
	traits := map[events.KeyRule]string{
		events.KeyAny: "keyedAtWill", events.KeyCompany: "keyedByCompany", events.KeyOutput: "published",
	}
	for _, info := range events.Topics() {
		for _, eventType := range info.Types {
			m := d.Components.Messages[eventType]
			if m.Name != eventType || m.Headers.Properties["ce_type"].Const != eventType || m.Payload.Ref != "./"+schemas.FileName(eventType) {
				t.Errorf("%s: name %q, ce_type %q, payload %q", eventType, m.Name, m.Headers.Properties["ce_type"].Const, m.Payload.Ref)
			}
			if first, _ := events.TopicOf(eventType); first != info.Name {
				continue // a result that has the type of its request is one message with it
			}
			if len(m.Traits) != 1 || m.Traits[0].Ref != "#/components/messageTraits/"+traits[info.KeyRule] {
				t.Errorf("%s: traits %v, want %s", eventType, m.Traits, traits[info.KeyRule])
			}
			if schema := readSchema(t, eventType); m.Summary != schema["description"] {
				t.Errorf("%s: %q, and the schema says %q", eventType, m.Summary, schema["description"])
			}
		}
	}
}

func readSchema(t *testing.T, eventType string) map[string]any {
	t.Helper()
	text, err := schemas.ByType(eventType)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestEveryReferenceOfTheDocumentResolvesAndEveryComponentIsUsed(t *testing.T) {
	t.Parallel()
	d := asyncAPI(t)
	used := map[string]bool{}
	var visit func(at string, node any)
	visit = func(at string, node any) {
		switch node := node.(type) {
		case map[string]any:
			if ref, ok := node["$ref"].(string); ok {
				used[ref] = true
				if err := resolve(d.tree, ref); err != nil || len(node) > 1 {
					t.Errorf("%s: $ref %s with %d neighbours: %v", at, ref, len(node)-1, err)
				}
			}
			for name, child := range node {
				visit(at+"/"+name, child)
			}
		case []any:
			for i, child := range node {
				visit(at+"/"+strconv.Itoa(i), child)
			}
		}
	}
	visit("#", d.tree)
	components, ok := d.tree.(map[string]any)["components"].(map[string]any)
	if !ok {
		t.Fatal("there are no components")
	}
	for kind, all := range components {
		for name := range all.(map[string]any) {
			if ref := "#/components/" + kind + "/" + name; !used[ref] {
				t.Errorf("nothing refers to %s", ref)
			}
		}
	}
}

// resolve finds what a reference of the document names: a place in it, or a schema beside it.
func resolve(tree any, ref string) error {
	pointer, inside := strings.CutPrefix(ref, "#/")
	if !inside {
		_, err := schemas.ByType(strings.TrimSuffix(strings.TrimPrefix(ref, "./"), ".schema.json"))
		return err
	}
	for name := range strings.SplitSeq(pointer, "/") {
		node, ok := tree.(map[string]any)
		if tree = node[name]; !ok || tree == nil {
			return fmt.Errorf("there is no %s in %s", name, ref)
		}
	}
	return nil
}

func TestTheDocumentSaysWhoReadsAndWritesEveryTopic(t *testing.T) {
	t.Parallel()
	d := asyncAPI(t)
	done := map[string]bool{}
	for name, op := range d.Operations {
		channel := strings.TrimPrefix(op.Channel.Ref, "#/channels/")
		done[op.Action+" "+channel] = true
		for _, m := range op.Messages {
			key, ok := strings.CutPrefix(m.Ref, op.Channel.Ref+"/messages/")
			if _, there := d.Channels[channel].Messages[key]; !ok || !there {
				t.Errorf("%s: %s is no message of %s", name, m.Ref, channel)
			}
			done[op.Action+" "+key] = true
		}
		switch group := op.Bindings.Kafka.GroupID.Const; op.Action {
		case "receive":
			if prefix := groupPrefix(t); !strings.HasPrefix(group, prefix+".") {
				t.Errorf("%s: the group is %q, want %s.<part>", name, group, prefix)
			}
		case "send":
			if group != "" {
				t.Errorf("%s sends and has the group %s", name, group)
			}
		}
	}
	for _, info := range events.Topics() {
		switch {
		case info.Name == events.TopicMaintenance: // the service's own: due events come back to it
			for _, eventType := range info.Types {
				if !done["send "+eventType] || done["receive "+eventType] != strings.HasSuffix(eventType, "_due.v1") {
					t.Errorf("%s: sent %t, received %t", eventType, done["send "+eventType], done["receive "+eventType])
				}
			}
			if !done["send "+events.DeadLetterTopic(info.Name)] {
				t.Errorf("%s has no dead letters", info.Name)
			}
		case info.Input:
			letters := events.DeadLetterTopic(info.Name)
			if !done["receive "+info.Name] || done["send "+info.Name] || !done["send "+letters] || done["receive "+letters] {
				t.Errorf("%s is an input: %v", info.Name, done)
			}
		default:
			if !done["send "+info.Name] || done["receive "+info.Name] {
				t.Errorf("%s is an output: %v", info.Name, done)
			}
		}
	}
}

func groupPrefix(t *testing.T) string {
	t.Helper()
	cfg, err := config.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.GroupPrefix
}

func TestTheDocumentHasTheSettingsOfTheTopicsThatMigrateCreates(t *testing.T) {
	t.Parallel()
	d := asyncAPI(t)
	for _, want := range topic.All(topic.Settings{}) {
		got := d.Channels[want.Name].Bindings.Kafka
		if got.Partitions != want.Partitions || got.Replicas != want.Replication {
			t.Errorf("%s: %d partitions, %d replicas, want %d and %d", want.Name, got.Partitions, got.Replicas, want.Partitions, want.Replication)
		}
		delete(want.Config, "min.insync.replicas") // follows from the replicas
		settings := map[string]string{}
		for name, value := range got.Config {
			settings[name] = strings.Trim(fmt.Sprint(value), "[]")
		}
		if !maps.Equal(settings, want.Config) {
			t.Errorf("%s: %v\nwant %v", want.Name, settings, want.Config)
		}
	}
}

func TestTheHeadersAreThoseThatAreWritten(t *testing.T) {
	t.Parallel()
	all := asyncAPI(t).Components.Schemas
	bare := events.Envelope{ID: "1", Source: "/s", Type: "t", Time: time.Unix(0, 0)}
	full := bare
	for _, field := range []*string{&full.Subject, &full.DataSchema, &full.TraceParent, &full.TraceState, &full.CausationID, &full.CausationSource} {
		*field = "x"
	}
	rec := events.Record{Topic: "usage.events"}
	_, _, letter := events.NewDeadLetter(&rec, "g", events.Reject(events.TooLarge, "x"), 1, time.Unix(0, 0))
	_, least := bare.EncodeBinary()
	_, most := full.EncodeBinary()

	// While tracing is on, the record has those of its span as well.
	traced := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}).Fields()

	// A tombstone's dead letter has every header there is; only dlq-null is not always there.
	withoutNull := slices.DeleteFunc(names(letter), func(name string) bool { return name == events.HeaderNull })
	for schema, want := range map[string]struct{ always, ever []string }{
		"outputHeaders":     {names(least), slices.Sorted(slices.Values(append(names(most), traced...)))},
		"deadLetterHeaders": {withoutNull, names(letter)},
	} {
		required := slices.Sorted(slices.Values(all[schema].Required))
		if !slices.Equal(required, want.always) || !slices.Equal(sortedKeys(all[schema].Properties), want.ever) {
			t.Errorf("%s: required %q of %q\nwritten %q of %q", schema, required, sortedKeys(all[schema].Properties), want.always, want.ever)
		}
	}
	// What must be there for an event to be read at all.
	for _, name := range all["inputHeaders"].Required {
		headers := slices.DeleteFunc(slices.Clone(least), func(h events.Header) bool { return h.Key == name })
		if _, err := events.ParseEnvelope(&events.Record{Headers: headers, Value: []byte("{}")}); err == nil || len(headers) == len(least) {
			t.Errorf("an event without %s is read", name)
		}
	}
}

func names(headers []events.Header) []string {
	var all []string
	for _, h := range headers {
		all = append(all, h.Key)
	}
	slices.Sort(all)
	return all
}

func TestTheDocumentKnowsEveryReasonOfADeadLetter(t *testing.T) {
	t.Parallel()
	reason, ok := asyncAPI(t).Components.Schemas["deadLetterHeaders"].Properties["dlq-reason"].(map[string]any)
	if !ok {
		t.Fatal("there is no dlq-reason")
	}
	// The list is closed, and is nowhere but in the source.
	file, err := parser.ParseFile(token.NewFileSet(), "../events/rejection.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []any
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" {
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Error(err)
				}
				want = append(want, text)
			}
		}
		return true
	})
	if len(want) < 10 || !reflect.DeepEqual(reason["enum"], want) {
		t.Errorf("reasons %v\nwant %v", reason["enum"], want)
	}
}

func TestTheDocumentDescribesWhatStandsForALargeRecord(t *testing.T) {
	t.Parallel()
	schema := asyncAPI(t).Components.Schemas["largeRecord"]
	text, err := json.Marshal(events.LargeRecord{})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	if want := sortedKeys(fields); !slices.Equal(sortedKeys(schema.Properties), want) || !slices.Equal(slices.Sorted(slices.Values(schema.Required)), want) {
		t.Errorf("%q, required %q\nwant %q", sortedKeys(schema.Properties), schema.Required, want)
	}
}

func TestTheExamplesOfTheDocumentAreEvents(t *testing.T) {
	t.Parallel()
	decoder, examples := newDecoder(t), 0
	for eventType, m := range asyncAPI(t).Components.Messages {
		for _, example := range m.Examples {
			examples++
			value, err := json.Marshal(example.Payload)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := events.TopicOf(eventType)
			record := events.Record{Topic: name, Key: []byte("acme"), Value: value}
			for key, text := range example.Headers {
				record.Headers = append(record.Headers, events.Header{Key: key, Value: []byte(text)})
			}
			if event, err := decoder.Decode(&record); err != nil || event.Type != eventType {
				t.Errorf("%s: %v", eventType, err)
			}
		}
	}
	if examples == 0 {
		t.Error("there are no examples")
	}
}

// AsyncAPI reads a schema as draft 7, and the files are of draft 2020-12. They are the same to both as long as they keep
// to words that mean the same in both, and a $ref has no neighbours, which draft 7 would ignore.
func TestTheSchemasMeanTheSameInDraft7(t *testing.T) {
	t.Parallel()
	same := []string{"$schema", "$ref", "$defs", "title", "description", "type", "required", "properties", "pattern", "minLength", "maxLength",
		"minimum", "maximum", "multipleOf", "format", "enum", "const", "allOf", "anyOf", "items", "minItems", "maxItems", "uniqueItems",
		"propertyNames", "additionalProperties", "default", "minProperties", "maxProperties"}
	for _, eventType := range schemas.Types() {
		var visit func(at string, schema any)
		visit = func(at string, node any) {
			schema, ok := node.(map[string]any)
			if !ok {
				return
			}
			for word, value := range schema {
				if !slices.Contains(same, word) {
					t.Errorf("%s%s: %s may mean something else", eventType, at, word)
				}
				if word == "$ref" && len(schema) > 1 {
					t.Errorf("%s%s: a $ref with neighbours", eventType, at)
				}
				switch value := value.(type) {
				case map[string]any:
					if word == "properties" || word == "$defs" {
						for name, child := range value {
							visit(at+"/"+word+"/"+name, child)
						}
					} else if word != "const" && word != "default" {
						visit(at+"/"+word, value)
					}
				case []any:
					if word == "items" {
						t.Errorf("%s%s: items is a list", eventType, at)
					}
					if word == "allOf" || word == "anyOf" {
						for i, child := range value {
							visit(at+"/"+word+"/"+strconv.Itoa(i), child)
						}
					}
				}
			}
		}
		visit("", readSchema(t, eventType))
	}
}
