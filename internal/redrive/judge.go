package redrive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/replay"
	"tenantflow/sinks/postgres"
)

// A judge decides what becomes of letters of one topic. It changes nothing.
type judge struct {
	letters LetterStore
	effects effects
	fix     *deadletter.Fix // nil: none
}

// effects knows which events of a topic have had their effect.
type effects interface {
	// decode checks an event as its consumer would. The error is a *events.Rejection.
	decode(r *events.Record) (*event, error)
	// look says, for each event that is not nil, whether it has had its effect. original is the letter's own event where a patch has
	// made another one of it and it can be understood.
	look(ctx context.Context, all, original []*event) ([]effect, error)
}

// An event is one that can be understood.
type event struct {
	source, id string
	owner      replay.Owner

	usage  *events.Record // of a usage event
	tenant *events.Event  // of another one
}

// effect says whether an event has had its effect.
type effect int

const (
	missing effect = iota
	there
	otherData // another event of the same identity has
)

// decide gives the letters' verdicts. records has what is to be published of those that are Published, and nil for the others; of whose
// events these are.
func (j *judge) decide(ctx context.Context, letters []*deadletter.Letter) (verdicts []Verdict, records []*events.Record, of []*event, err error) {
	verdicts, records = make([]Verdict, len(letters)), make([]*events.Record, len(letters))
	origins := make([]events.Origin, len(letters))
	for i, l := range letters {
		origins[i] = l.Origin
	}
	changes, err := j.letters.LetterChanges(ctx, origins)
	if err != nil {
		return nil, nil, nil, err
	}
	all, original := make([]*event, len(letters)), make([]*event, len(letters))
	for i, l := range letters {
		if c, ok := changes[l.Origin]; ok && c.State != postgres.LetterOpen {
			verdicts[i] = Verdict{Outcome: NotOpen}
			continue
		}
		if verdicts[i], records[i], all[i], original[i] = j.understand(l); verdicts[i].Outcome != Published {
			all[i], original[i] = nil, nil
		}
	}
	if err := j.leaveOut(ctx, verdicts, all); err != nil {
		return nil, nil, nil, err
	}
	had, err := j.effects.look(ctx, all, original)
	if err != nil {
		return nil, nil, nil, err
	}
	for i, l := range letters {
		if all[i] != nil {
			verdicts[i] = judged(l, had[i])
		}
		if verdicts[i].Outcome != Published {
			records[i] = nil
		}
	}
	return verdicts, records, all, nil
}

// understand patches and decodes the event of a letter.
func (j *judge) understand(l *deadletter.Letter) (v Verdict, r *events.Record, of, original *event) {
	r = l.Original()
	if r.Large != nil {
		return Verdict{TooLarge, "it holds sizes and hashes in place of the original bytes"}, nil, nil, nil
	}
	if j.fix != nil {
		original, _ = j.effects.decode(r) // nil: it can't be understood, so it had no effect
		var err error
		if r, err = j.fix.Apply(l); err != nil {
			return Verdict{Unpatched, err.Error()}, nil, nil, nil
		}
	}
	of, err := j.effects.decode(r)
	var rejection *events.Rejection
	switch {
	case errors.As(err, &rejection):
		return Verdict{Invalid, rejection.Error()}, nil, nil, nil
	case err != nil:
		return Verdict{Invalid, err.Error()}, nil, nil, nil
	}
	return Verdict{}, r, of, original
}

// leaveOut takes out events of users who asked to be erased, and of purged companies.
func (j *judge) leaveOut(ctx context.Context, verdicts []Verdict, all []*event) error {
	var owners []replay.Owner
	for _, e := range all {
		if e != nil {
			owners = append(owners, e.owner)
		}
	}
	forgotten, err := replay.Forgotten(ctx, j.letters, owners)
	if err != nil {
		return err
	}
	for i, e := range all {
		if e == nil {
			continue
		}
		if why := forgotten(e.owner); why != replay.Published {
			verdicts[i], all[i] = leftOut(e.owner, why), nil
		}
	}
	return nil
}

// leftOut is the verdict about an event whose owner is forgotten.
func leftOut(o replay.Owner, why replay.Outcome) Verdict {
	if why == replay.Purged {
		return Verdict{Purged, "company " + o.Company + " is purged"}
	}
	return Verdict{Erased, "the user has asked to be erased"}
}

// judged is the verdict about an event that can be published.
func judged(l *deadletter.Letter, had effect) Verdict {
	switch {
	case had == there:
		return Verdict{Outcome: AlreadyThere}
	case had == otherData:
		return Verdict{Conflict, fmt.Sprintf("an event with source %q and id %q and other data has had its effect; this one needs an id of its own", l.Source, l.ID)}
	case l.Reason == events.Conflict:
		// The event that came first is not always found: it may be of another company, user or time. Published long afterwards, this one
		// could become a second row of the same identity.
		return Verdict{Conflict, fmt.Sprintf("it was refused because another event has source %q and id %q: it needs an id of its own", l.Source, l.ID)}
	}
	return Verdict{Outcome: Published}
}

// tenantEffects are those of company and subscription events: each that was taken in has a row in the inbox.
type tenantEffects struct {
	decoder *events.Decoder
	store   LetterStore
	future  time.Duration
}

func (t *tenantEffects) decode(r *events.Record) (*event, error) {
	e, err := t.decoder.Decode(r)
	if err != nil {
		return nil, err
	}
	if err := e.CheckTime(time.Now(), t.future); err != nil {
		return nil, err
	}
	if _, err := e.Payload(); err != nil {
		return nil, err
	}
	return &event{source: e.Source, id: e.ID, owner: replay.Owner{Company: e.Key, User: e.UserID()}, tenant: e}, nil
}

func (t *tenantEffects) look(ctx context.Context, all, _ []*event) ([]effect, error) {
	of := make([]*events.Event, len(all))
	for i, e := range all {
		if e != nil {
			of[i] = e.tenant
		}
	}
	known, err := t.store.KnownEvents(ctx, of)
	if err != nil {
		return nil, err
	}
	had := make([]effect, len(all))
	for i, k := range known {
		switch k {
		case postgres.KnownSame:
			had[i] = there
		case postgres.KnownElse:
			had[i] = otherData
		case postgres.Unknown:
		}
	}
	return had, nil
}
