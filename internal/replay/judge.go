package replay

import (
	"context"
	"time"

	"tenantflow/events"
	"tenantflow/internal/task"
	"tenantflow/sinks/postgres"
)

// A judge decides what becomes of the records of a stretch of the log: it takes them one after the other, and then asks the
// stores about all of them at once.
type judge interface {
	// reset begins a stretch of a partition.
	reset(partition int)
	// add takes a record. It keeps nothing that points into it.
	add(r *events.Record)
	// held is how many bytes are kept.
	held() int64
	// decide gives the records' verdicts, in the order in which they were added.
	decide(ctx context.Context) ([]verdict, error)
	// owner says whose event a record holds that is to be published, and whether it is one by which its owner is forgotten. The error is a
	// *events.Rejection where this process does not take it for an event.
	owner(r *events.Record) (o Owner, forgets bool, err error)
	// mayForget reports whether there are events of that kind at all.
	mayForget() bool
	// stillCounted counts those of the records, by their number in the order of add, that the totals count although their rows are missing.
	stillCounted(ctx context.Context, records []int) (int64, error)
}

// A verdict is what becomes of a record.
type verdict struct {
	offset         int64
	outcome        Outcome // Published: it is missing
	content, large content // what its dead letter would hold
	event          *Event  // of one that is missing
}

// verdictOn is the verdict on a record, until more is known.
func verdictOn(r *events.Record, outcome Outcome) verdict {
	v := verdict{offset: r.Offset, outcome: outcome}
	v.content, v.large = contentOf(r)
	return v
}

// An Event names an event that is missing.
type Event struct {
	Source    string    `json:"source"`
	ID        string    `json:"id"`
	Company   string    `json:"company_id"`
	User      string    `json:"user_id,omitempty"`
	Time      time.Time `json:"time"` // of usage: its timestamp
	Partition int       `json:"partition"`
	Offset    int64     `json:"offset"`
}

// Day is the UTC day of the event.
func (e *Event) Day() string { return e.Time.UTC().Format(time.DateOnly) }

// A companyStore knows companies, users and the inbox: *postgres.Store.
type companyStore interface {
	ForgottenStore
	KnownEvents(ctx context.Context, all []*events.Event) ([]postgres.Known, error)
}

// What the rules that all judges share need.
type rules struct {
	filter  *filter
	store   companyStore
	letters *letters
	// known returns which identities the task has published before; nil: none.
	known func(ctx context.Context, identities [][]byte) (map[string]bool, error)
}

// leave decides about candidates: events whose effect is missing. It takes out those that must not come back, those whose dead letter
// is written, and those of which this replay has published a copy. same reports whether two of them, by their places in the list, have
// the same data.
func (r *rules) leave(ctx context.Context, candidates []*verdict, same func(i, j int) bool) error {
	if len(candidates) == 0 {
		return nil
	}
	owners := make([]Owner, len(candidates))
	for i, c := range candidates {
		owners[i] = Owner{c.event.Company, c.event.User}
	}
	forgotten, err := Forgotten(ctx, r.store, owners)
	if err != nil {
		return err
	}
	firsts := map[string]int{}
	var identities [][]byte
	for i, c := range candidates {
		if outcome := forgotten(owners[i]); outcome != Published {
			c.outcome = outcome
			continue
		}
		reason, written, err := r.letters.of(ctx, c.event.Partition, c)
		switch {
		case err != nil:
			return err
		case written && reason == events.Conflict:
			c.outcome = Conflict
			continue
		case written:
			c.outcome = Settled
			continue
		}
		identity := task.Identity(c.event.Source, c.event.ID)
		if first, again := firsts[string(identity)]; again {
			c.outcome = AlreadyThere
			if !same(first, i) {
				c.outcome = Conflict
			}
			continue
		}
		firsts[string(identity)] = i
		identities = append(identities, identity)
	}
	if r.known == nil {
		return nil
	}
	known, err := r.known(ctx, identities)
	if err != nil {
		return err
	}
	for identity, i := range firsts {
		if known[identity] {
			candidates[i].outcome = AlreadyThere
		}
	}
	return nil
}
