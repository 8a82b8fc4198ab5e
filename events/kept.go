package events

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"tenantflow/schemas"
)

// Kept gives the data as stores may keep it: without the members that the schema of the type does not name. Objects whose schema says
// that they are stored as they are (a payment, a configuration) stay whole, and values keep their text.
func (e *Event) Kept() (json.RawMessage, error) {
	kept, rejection := known(e, func(v any, _ bool) any { return v })
	if rejection != nil {
		return nil, rejection
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("write the data of event %s: %w", quoted(e.ID), err)
	}
	return text, nil
}

// Canonical gives the data in the one form that all deliveries of an event share: known members only, sorted by name, one text for each
// number (4900, 4900.0 and 49e2) and for each time (Z and +00:00). Data that is not JSON comes back as it is.
func (e *Event) Canonical() []byte {
	same, rejection := known(e, canonical)
	if rejection != nil {
		return e.Data
	}
	text, err := json.Marshal(same)
	if err != nil {
		return e.Data
	}
	return text
}

// known parses the data, drops unknown members and rewrites what is left.
func known(e *Event, rewrite func(value any, isTime bool) any) (any, *Rejection) {
	data, rejection := parseData(e.Data)
	if rejection != nil {
		return nil, rejection
	}
	return shapeOf(e.Type).take(data, rewrite), nil
}

// canonical is the one form of a number or a time.
func canonical(value any, isTime bool) any {
	switch v := value.(type) {
	case json.Number:
		return canonicalNumber(string(v))
	case string:
		if t, ok := parseTime([]byte(v)); ok && isTime {
			return t.Format(time.RFC3339Nano)
		}
	}
	return value
}

// A shape says which members of a type's data are known.
type shape struct {
	members map[string]*shape // nil: the member stays whole
	isTime  bool
}

// take copies a value without unknown members.
func (s *shape) take(value any, rewrite func(any, bool) any) any {
	switch v := value.(type) {
	case map[string]any:
		kept := make(map[string]any, len(v))
		for name, member := range v {
			below, ok := s.members[name]
			if !ok && s.members != nil {
				continue
			}
			kept[name] = below.orWhole().take(member, rewrite)
		}
		return kept
	case []any:
		kept := make([]any, len(v))
		for i, item := range v {
			kept[i] = (&shape{}).take(item, rewrite)
		}
		return kept
	}
	return rewrite(value, s.isTime)
}

func (s *shape) orWhole() *shape {
	if s == nil {
		return &shape{}
	}
	return s
}

// shapeOf gives the shape of a type's data: of a type without a schema, everything.
func shapeOf(eventType string) *shape { return shapes()[eventType].orWhole() }

// shapes reads the shapes of all types out of their schemas, once.
var shapes = sync.OnceValue(func() map[string]*shape { //nolint:gochecknoglobals // computed from embedded files
	all := map[string]*shape{}
	for _, eventType := range schemas.Types() {
		text, err := schemas.ByType(eventType)
		if err != nil {
			continue // it is listed: there is a schema
		}
		var node schemaNode
		if err := json.Unmarshal(text, &node); err != nil {
			continue // NewDecoder fails on a broken schema
		}
		all[eventType] = node.shape()
	}
	return all
})

// A schemaNode is what a shape depends on in a JSON Schema.
type schemaNode struct {
	Format     string                `json:"format"`
	Properties map[string]schemaNode `json:"properties"`
	AllOf      []struct {
		Ref string `json:"$ref"`
	} `json:"allOf"`
}

// storable is the schema of what is stored as it is.
const storable = "#/$defs/storable"

func (n *schemaNode) shape() *shape {
	s := &shape{isTime: n.Format == "date-time"}
	for _, all := range n.AllOf {
		if all.Ref == storable {
			return s
		}
	}
	for name, below := range n.Properties {
		if s.members == nil {
			s.members = map[string]*shape{}
		}
		s.members[name] = below.shape()
	}
	return s
}
