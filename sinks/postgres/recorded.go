package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed recorded.sql
	recordedSQL string
	//go:embed recorded_these.sql
	recordedTheseSQL string
)

// An EventID is the identity of an event.
type EventID struct{ Source, ID string }

// A Recorded is an event of the inbox that is at its end: done, or refused by a rule.
type Recorded struct {
	EventID
	Type, Company string
	// PublishedAt is when its results were known to be published, by Postgres' clock; the zero time: they are not.
	PublishedAt time.Time
	// Results are what was published. Nil if the row has none, or none that can be read.
	Results []Result
	// Forgotten: the row has no result any more, as the rows of a purged company have none.
	Forgotten bool
	// Purged: the company is.
	Purged bool
	// Faulty: the row says that its result can't be read.
	Faulty bool
	// Unreadable says why the result can't be read; empty: it can.
	Unreadable string
}

// Repeats reports whether the event may have been done more than once, each time with other results: what is due may fall due again.
func (r *Recorded) Repeats() bool { return r.Source == tenant.DueSource }

// Now reads Postgres' clock.
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return now, s.explain("read the clock", err)
	}
	return now, nil
}

// Recorded calls each for the events of the inbox whose results were published, since a time (zero: since ever), in the order of their
// identities. It reads page after page: an event whose results are published meanwhile may be left out.
func (s *Store) Recorded(ctx context.Context, since time.Time, each func(*Recorded) error) error {
	const page = 1000
	from := pgtype.Timestamptz{Time: since, Valid: !since.IsZero()}
	for last := (EventID{}); ; {
		found, err := s.recorded(ctx, recordedSQL, last.Source, last.ID, page, from)
		if err != nil {
			return err
		}
		for i := range found {
			if err := each(&found[i]); err != nil {
				return err
			}
		}
		if len(found) < page {
			return nil
		}
		last = found[len(found)-1].EventID
	}
}

// RecordedOf returns those of some events that are in the inbox and at their end.
func (s *Store) RecordedOf(ctx context.Context, ids []EventID) (map[EventID]*Recorded, error) {
	sources, names := make([]string, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		sources[i], names[i] = id.Source, id.ID
	}
	found, err := s.recorded(ctx, recordedTheseSQL, sources, names)
	if err != nil {
		return nil, err
	}
	all := make(map[EventID]*Recorded, len(found))
	for i := range found {
		all[found[i].EventID] = &found[i]
	}
	return all, nil
}

func (s *Store) recorded(ctx context.Context, sql string, args ...any) ([]Recorded, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, s.explain("list the events of the inbox", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Recorded, err error) {
		var text []byte
		var published pgtype.Timestamptz
		if err := row.Scan(&r.Source, &r.ID, &r.Type, &r.Company, &text, &published, &r.Purged, &r.Faulty); err != nil {
			return r, err
		}
		if published.InfinityModifier == pgtype.Finite {
			r.PublishedAt = published.Time
		}
		if r.Forgotten = text == nil; r.Forgotten {
			return r, nil
		}
		one, err := readApplied(&events.Envelope{Source: r.Source, ID: r.ID}, text)
		if err != nil {
			r.Unreadable = err.Error()
			return r, nil //nolint:nilerr // it is the row's
		}
		r.Results = one.Results
		return r, nil
	})
	if err != nil {
		return nil, s.explain("list the events of the inbox", err)
	}
	return found, nil
}

// KnownAs says what the inbox knows of an event.
type KnownAs int

// What the inbox may know of an event.
const (
	EventUnknown KnownAs = iota // nothing
	EventKnown                  // the event
	EventOther                  // another event of the same identity
)

// Know looks up what the inbox knows of some events. An event without a type stands for its identity alone.
func (s *Store) Know(ctx context.Context, all []*events.Event) ([]KnownAs, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sources, ids := make([]string, len(all)), make([]string, len(all))
	for i, e := range all {
		sources[i], ids[i] = e.Source, e.ID
	}
	rows, err := s.pool.Query(ctx, `SELECT a.place, i.fingerprint FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a (source, event_id, place)
		JOIN public.inbox AS i ON i.source = a.source AND i.event_id = a.event_id`, sources, ids)
	known := make([]KnownAs, len(all))
	if err == nil {
		var place int
		var print []byte
		_, err = pgx.ForEachRow(rows, []any{&place, &print}, func() error {
			e := all[place-1]
			known[place-1] = EventOther
			if e.Type == "" || sameEvent(print, e) {
				known[place-1] = EventKnown
			}
			return nil
		})
	}
	if err != nil {
		return nil, s.explain("look for events in the inbox", err)
	}
	return known, nil
}
