package deadletter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"tenantflow/events"
)

// A Fix is a JSON patch (RFC 6902) for the events of letters.
//
// It applies to the event's data: /user_id is the data's member user_id. A path that begins with /data, or that names an attribute
// (/type, /time, /subject, ...), applies to the whole event in CloudEvents' JSON form: {attributes, "data": ...}, whichever mode the
// record is in. /partitionkey is the record's key. The identity, /source and /id, may be tested and not changed.
type Fix struct{ patch jsonpatch.Patch }

// attributes are the members of an event in its JSON form that a path may name, beside data.
func attributes() []string {
	return []string{"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "partitionkey", "traceparent", "tracestate"}
}

// ErrIdentity says that a patch would change the identity of an event.
var ErrIdentity = errors.New("source and id are the event's identity, which a patch can't change; an event with another identity is another event: publish it with `tenantflow produce`")

// ParseFix reads a patch: a JSON array of operations. The error says what is wrong with it, and wraps ErrIdentity where it would change
// the identity of events.
func ParseFix(text []byte) (*Fix, error) {
	var operations []map[string]json.RawMessage
	if err := json.Unmarshal(text, &operations); err != nil {
		return nil, fmt.Errorf("the patch is no JSON array of operations (RFC 6902): %w", err)
	}
	if len(operations) == 0 {
		return nil, errors.New("the patch has no operations")
	}
	for i, o := range operations {
		if err := normalize(o); err != nil {
			return nil, fmt.Errorf("operation %d of the patch: %w", i+1, err)
		}
	}
	whole, err := json.Marshal(operations)
	if err != nil {
		return nil, fmt.Errorf("read the patch: %w", err)
	}
	patch, err := jsonpatch.DecodePatch(whole)
	if err != nil {
		return nil, fmt.Errorf("the patch is no patch of RFC 6902: %w", err)
	}
	return &Fix{patch}, nil
}

// normalize makes the paths of an operation those of the whole event, and refuses what no letter can be fixed with.
func normalize(o map[string]json.RawMessage) error {
	name := text(o["op"])
	if !slices.Contains([]string{"add", "remove", "replace", "move", "copy", "test"}, name) {
		return fmt.Errorf("there is no operation %q; there are add, remove, replace, move, copy and test", name)
	}
	for _, member := range []string{"path", "from"} {
		raw, ok := o[member]
		if !ok {
			if member == "path" || name == "move" || name == "copy" {
				return fmt.Errorf("%s has no %s", name, member)
			}
			continue
		}
		var path string
		if err := json.Unmarshal(raw, &path); err != nil {
			return fmt.Errorf("%s is no string", member)
		}
		if path != "" && path[0] != '/' {
			return fmt.Errorf("%s %q does not begin with /", member, path)
		}
		path = ofEvent(path)
		changes := name != "test" && (member == "path" || name == "move")
		if first, _, _ := strings.Cut(path[1:], "/"); changes && (first == "id" || first == "source") {
			return ErrIdentity
		}
		whole, err := json.Marshal(path)
		if err != nil {
			return err
		}
		o[member] = whole
	}
	if _, ok := o["value"]; !ok && (name == "add" || name == "replace" || name == "test") {
		return fmt.Errorf("%s has no value", name)
	}
	return nil
}

// ofEvent is a path in the whole event.
func ofEvent(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if first == "data" || slices.Contains(attributes(), first) {
		return path
	}
	return "/data" + path
}

// Apply makes the record that the letter's original is when it is fixed. What the patch does not touch stays as it is, byte for byte.
// The error says why the patch can't be applied to this letter.
func (f *Fix) Apply(l *Letter) (*events.Record, error) {
	original := l.Original()
	if original.Large != nil {
		return nil, errors.New("its bytes are not there")
	}
	d := newDocument(original)
	before, err := d.encode()
	if err != nil {
		return nil, err
	}
	options := jsonpatch.NewApplyOptions()
	options.EscapeHTML = false
	after, err := f.patch.ApplyWithOptions(before, options)
	if err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(after, &members); err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	fixed, err := d.record(members)
	if err != nil {
		return nil, err
	}
	if e, err := events.ParseEnvelope(fixed); err == nil && (e.Source != l.Source || e.ID != l.ID) {
		return nil, ErrIdentity
	}
	return fixed, nil
}

// A document is a record as a patch sees it: an event in its JSON form.
type document struct {
	original   *events.Record
	structured bool
	members    map[string]json.RawMessage // in binary mode, and in structured mode beside the value
	ownKey     json.RawMessage            // the member partitionkey of an event in structured mode
}

const (
	headerContentType = "content-type"
	headerPrefix      = "ce_"
)

func newDocument(r *events.Record) *document {
	d := &document{original: r, members: map[string]json.RawMessage{}}
	contentType := headerOf(r.Headers, headerContentType)
	d.structured = strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents")
	if !d.structured {
		for _, name := range attributes() {
			if value, ok := lookUp(r.Headers, headerPrefix+name); ok && name != "partitionkey" {
				d.members[name] = quote(value)
			}
		}
		if contentType != "" {
			d.members["datacontenttype"] = quote(contentType)
		}
		d.members["data"] = null()
		if json.Valid(r.Value) {
			d.members["data"] = r.Value
		}
	}
	if len(r.Key) > 0 && utf8.Valid(r.Key) {
		d.members["partitionkey"] = quote(string(r.Key))
	}
	return d
}

// encode writes the document.
func (d *document) encode() ([]byte, error) {
	if d.structured {
		var event map[string]json.RawMessage
		if err := json.Unmarshal(d.original.Value, &event); err != nil || event == nil {
			return nil, errors.New("the event is in structured mode and no JSON object, so no path leads into it")
		}
		d.ownKey = event["partitionkey"]
		delete(event, "partitionkey")
		if key, ok := d.members["partitionkey"]; ok {
			event["partitionkey"] = key
		}
		if encoded, ok := event["data_base64"]; ok && event["data"] == nil {
			if data, err := base64.StdEncoding.DecodeString(text(encoded)); err == nil && json.Valid(data) {
				delete(event, "data_base64")
				event["data"] = data
			}
		}
		d.members = event
	}
	return encode(d.members)
}

// record makes a record of the patched document.
func (d *document) record(members map[string]json.RawMessage) (*events.Record, error) {
	fixed := *d.original
	fixed.Headers = slices.Clone(d.original.Headers)
	if !same(members["partitionkey"], d.members["partitionkey"]) {
		key := text(members["partitionkey"])
		if key == "" {
			return nil, errors.New("the patch leaves the record without a key")
		}
		fixed.Key = []byte(key)
	}
	if d.structured {
		return d.structuredRecord(&fixed, members)
	}
	for _, name := range attributes() {
		if name == "partitionkey" || same(members[name], d.members[name]) {
			continue
		}
		header := headerPrefix + name
		if name == "datacontenttype" {
			header = headerContentType
		}
		fixed.Headers = slices.DeleteFunc(fixed.Headers, func(h events.Header) bool { return h.Key == header })
		if raw, ok := members[name]; ok && !bytes.Equal(raw, null()) {
			value := text(raw)
			if value == "" {
				return nil, fmt.Errorf("the patch makes the attribute %s something else than a string", name)
			}
			fixed.Headers = append(fixed.Headers, events.Header{Key: header, Value: []byte(value)})
		}
	}
	data, ok := members["data"]
	switch {
	case !ok:
		fixed.Value = []byte{}
	case !same(data, d.members["data"]):
		fixed.Value = slices.Clone(data)
	}
	return &fixed, nil
}

// structuredRecord writes the event of a record in structured mode, if the patch has touched more than its key.
func (d *document) structuredRecord(fixed *events.Record, members map[string]json.RawMessage) (*events.Record, error) {
	delete(members, "partitionkey")
	delete(d.members, "partitionkey")
	if maps.EqualFunc(members, d.members, same) && d.ownKey == nil {
		return fixed, nil
	}
	if d.ownKey != nil { // which says what the record's key says
		members["partitionkey"] = quote(string(fixed.Key))
	}
	value, err := encode(members)
	fixed.Value = value
	return fixed, err
}

// encode writes JSON without the escapes that only HTML needs.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, fmt.Errorf("write the patched event: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func null() json.RawMessage { return json.RawMessage("null") }

// same compares members. An absent one is not null.
func same(a, b json.RawMessage) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return false
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

func quote(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil {
		return null() // a string always marshals
	}
	return raw
}

func headerOf(headers []events.Header, name string) string {
	value, _ := lookUp(headers, name)
	return value
}

func lookUp(headers []events.Header, name string) (string, bool) {
	i := slices.IndexFunc(headers, func(h events.Header) bool { return h.Key == name })
	if i < 0 {
		return "", false
	}
	return string(headers[i].Value), true
}
