package deadletter

import (
	"bytes"
	"slices"
	"time"

	"tenantflow/events"
)

// A Filter chooses letters. Of each list one entry must fit; an empty list takes all. It is part of a task's spec, as JSON.
type Filter struct {
	Topics    []string        `json:"topics,omitempty"` // input topics, with prefix
	Reasons   []events.Reason `json:"reasons,omitempty"`
	Companies []string        `json:"companies,omitempty"`
	Users     []string        `json:"users,omitempty"`
	IDs       []string        `json:"ids,omitempty"`  // of events
	Since     time.Time       `json:"since,omitzero"` // of dlq-failed-at; inclusive
	Until     time.Time       `json:"until,omitzero"` // exclusive
	Origins   []events.Origin `json:"origins,omitempty"`
}

// Empty reports whether the filter takes every letter.
func (f *Filter) Empty() bool {
	return len(f.Topics)+len(f.Reasons)+len(f.Companies)+len(f.Users)+len(f.IDs)+len(f.Origins) == 0 && f.Since.IsZero() && f.Until.IsZero()
}

// A matcher is a Filter made ready for many letters.
type matcher struct {
	*Filter
	origins map[events.Origin]struct{}
}

func (f *Filter) matcher() *matcher {
	m := &matcher{Filter: f, origins: make(map[events.Origin]struct{}, len(f.Origins))}
	for _, o := range f.Origins {
		m.origins[o] = struct{}{}
	}
	return m
}

// takes reports whether the filter takes a letter, the cheap conditions first. A letter that is taken has been read.
func (m *matcher) takes(l *Letter) bool {
	switch {
	case len(m.Topics) > 0 && !slices.Contains(m.Topics, l.Topic),
		len(m.Reasons) > 0 && !slices.Contains(m.Reasons, l.Reason),
		!m.Since.IsZero() && l.FailedAt.Before(m.Since),
		!m.Until.IsZero() && !l.FailedAt.Before(m.Until):
		return false
	}
	if len(m.origins) > 0 {
		if _, chosen := m.origins[l.Origin]; !chosen {
			return false
		}
	}
	for _, names := range [][]string{m.Companies, m.Users, m.IDs} {
		if len(names) > 0 && !l.holdsAny(names) {
			return false
		}
	}
	l.read()
	return named(m.Companies, l.Company) && named(m.Users, l.User) && named(m.IDs, l.ID)
}

// holdsAny is false if the letter's bytes hold none of the names. Bytes with an escape of JSON, or with data in base64, may hold a name
// that is written in another way.
func (l *Letter) holdsAny(names []string) bool {
	return slices.ContainsFunc(names, l.contains) || bytes.IndexByte(l.Value, '\\') >= 0 || bytes.Contains(l.Value, []byte("data_base64"))
}

func named(wanted []string, name string) bool {
	return len(wanted) == 0 || slices.Contains(wanted, name)
}
