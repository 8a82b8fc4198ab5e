package postgres

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
)

//go:embed left_out.sql
var leftOutSQL string

// LeftOut is whose events must not be brought back.
type LeftOut struct {
	purged map[string]bool
	erased map[[2]string]bool
}

// Purged reports whether a company is purged.
func (l *LeftOut) Purged(company string) bool { return l.purged[company] }

// Erased reports whether a user of a company has asked to be erased.
func (l *LeftOut) Erased(company, user string) bool { return l.erased[[2]string{company, user}] }

// LeftOut reads which of some companies are purged, and which of their users asked to be erased.
func (s *Store) LeftOut(ctx context.Context, companies []string) (*LeftOut, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	found := &LeftOut{purged: map[string]bool{}, erased: map[[2]string]bool{}}
	rows, err := s.pool.Query(ctx, leftOutSQL, companies)
	if err != nil {
		return nil, s.explain("look whose events must not come back", err)
	}
	var company, user string
	if _, err := pgx.ForEachRow(rows, []any{&company, &user}, func() error {
		if user == "" {
			found.purged[company] = true
		} else {
			found.erased[[2]string{company, user}] = true
		}
		return nil
	}); err != nil {
		return nil, s.explain("look whose events must not come back", err)
	}
	return found, nil
}

// A Known says what the inbox knows of an event.
type Known int

// What the inbox may know.
const (
	Unknown   Known = iota // nothing: its effect is missing
	KnownSame              // it was taken in
	KnownElse              // another event of the same identity was
)

// KnownEvents looks events up in the inbox. Events that are nil are Unknown.
func (s *Store) KnownEvents(ctx context.Context, all []*events.Event) ([]Known, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sources, ids := make([]string, len(all)), make([]string, len(all))
	for i, e := range all {
		if e != nil {
			sources[i], ids[i] = e.Source, e.ID
		}
	}
	rows, err := s.pool.Query(ctx, `SELECT a.place, i.fingerprint
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a (source, event_id, place)
		JOIN public.inbox AS i ON i.source = a.source AND i.event_id = a.event_id`, sources, ids)
	known := make([]Known, len(all))
	if err == nil {
		var place int
		var print []byte
		_, err = pgx.ForEachRow(rows, []any{&place, &print}, func() error {
			if e := all[place-1]; e != nil {
				known[place-1] = KnownElse
				if sameEvent(print, e) {
					known[place-1] = KnownSame
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, s.explain("look for events in the inbox", err)
	}
	return known, nil
}

// ReplayKey reads the key of the proofs that replayed records carry.
func (s *Store) ReplayKey(ctx context.Context) (events.ReplayKey, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var key []byte
	if err := s.pool.QueryRow(ctx, "SELECT key FROM public.replay_key").Scan(&key); err != nil {
		return nil, s.explain("read the key of replays", err)
	}
	return key, nil
}
