package deadletter

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// A Query says which letters a page shows.
type Query struct {
	Filter

	Oldest bool   // the oldest first; otherwise the newest
	Limit  int    // letters; 0: all
	Scan   int64  // records to look at, at most; 0: as many as it takes
	Cursor string // Page.Next of the page before; empty: the first page

	// Keep, if set, receives letters that the filter takes and returns those to be shown, in the same order.
	Keep func(context.Context, []*Letter) ([]*Letter, error)
}

// A Page is a part of the letters. Their bytes are left out, and keys are cut: see Reader.Find.
type Page struct {
	Letters []*Letter
	Looked  []Looked // what was looked at for this page, partition by partition
	Records int64    // that were read; some may belong to the next page
	Next    string   // the cursor of the next page; empty: everything was looked at
}

// Looked says how far a page looked in one partition: at offsets [From, To) of a log that holds [LogFrom, LogTo).
type Looked struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	LogFrom   int64  `json:"log_from"`
	LogTo     int64  `json:"log_to"`
}

const (
	smallestRead = 64 // records of a partition
	largestRead  = 16 << 10
	// overlap is how many records of the page before are read again for their origins, so that a letter that was written twice in a
	// short time is not on both pages.
	overlap   = 256
	atOnce    = 8 // partitions that are read at the same time
	clockSkew = 10 * time.Minute
)

// Page reads one page. It reads the partitions from the end backwards (from the beginning, if the oldest are first), in pieces that grow,
// and only until the page is full: letters are ordered by the time at which they were written to the dead letter topic.
//
// Where Scan ends the page, the letters found so far are on it, and the next page goes on behind them; the order then holds within each page only.
func (r *Reader) Page(ctx context.Context, q Query) (*Page, error) {
	s := &search{reader: r, query: q, matcher: q.matcher(), seen: map[events.Origin]struct{}{}, left: q.Scan}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	for q.Limit == 0 || len(s.page.Letters) < q.Limit {
		best, unsure := s.choose()
		if len(unsure) > 0 && (q.Scan == 0 || s.left > 0) {
			if err := s.read(ctx, unsure); err != nil {
				return nil, err
			}
			continue
		}
		if best == nil {
			break
		}
		l := best.found[0]
		best.found = best.found[1:]
		if _, again := s.seen[l.Origin]; !again {
			s.seen[l.Origin] = struct{}{}
			s.page.Letters = append(s.page.Letters, l)
		}
	}
	return s.finish()
}

// A search is a page under way.
type search struct {
	reader  *Reader
	query   Query
	matcher *matcher
	sides   []*side
	seen    map[events.Origin]struct{}
	left    int64 // records that may be looked at
	page    Page
}

// A side is one partition of a search.
type side struct {
	log    Stretch // what the partition holds
	unread Stretch
	begun  int64     // where the page begins: an end of what is unread
	found  []*Letter // read and not on the page yet, in the page's order
	edge   time.Time // when the last record read was written, in the page's order: what is unread is beyond it
	size   int64     // of the next read
}

func (s *side) exhausted() bool { return s.unread.From >= s.unread.To }

// open finds the partitions, and where the page begins in each.
func (s *search) open(ctx context.Context) error {
	at, err := decodeCursor(s.query.Cursor, s.query.Oldest)
	if err != nil {
		return err
	}
	bounds, err := s.reader.Bounds(ctx)
	if err != nil {
		return err
	}
	for _, log := range bounds {
		p := &side{log: log, unread: log, size: smallestRead}
		if s.query.Limit == 0 {
			p.size = largestRead
		}
		if err := s.bound(ctx, p); err != nil {
			return err
		}
		offset, known := at[log.Topic][log.Partition]
		switch {
		case !known:
		case s.query.Oldest:
			p.unread.From = max(p.unread.From, offset)
		default:
			p.unread.To = min(p.unread.To, offset)
		}
		if p.begun = p.unread.To; s.query.Oldest {
			p.begun = p.unread.From
		}
		if known {
			if err := s.remember(ctx, p, offset); err != nil {
				return err
			}
		}
		s.sides = append(s.sides, p)
	}
	return nil
}

// bound leaves out what was written before the time looked for: a letter is written after it failed. Clocks may differ a little.
func (s *search) bound(ctx context.Context, p *side) error {
	since := s.query.Since.Add(-clockSkew)
	if s.query.Since.IsZero() || since.After(time.Now()) {
		return nil
	}
	from, err := kafka.OffsetAt(ctx, s.reader.Client, p.log.Topic, p.log.Partition, since, p.log.To)
	if err != nil {
		return err
	}
	p.unread.From = max(p.unread.From, from)
	return nil
}

// remember reads the origins of the last letters of the page before.
func (s *search) remember(ctx context.Context, p *side, offset int64) error {
	before := Stretch{p.log.Topic, p.log.Partition, offset, min(p.log.To, offset+overlap)}
	if s.query.Oldest {
		before.From, before.To = max(p.log.From, offset-overlap), offset
	}
	return s.reader.records(ctx, before, func(r *events.Record) error {
		s.page.Records++
		if l, err := parse(r); err == nil {
			s.seen[l.Origin] = struct{}{}
		}
		return nil
	})
}

// choose returns the partition whose next letter is the next of the page, as far as is known, and the partitions that may hold one that
// comes before it.
func (s *search) choose() (best *side, unsure []*side) {
	for _, p := range s.sides {
		if len(p.found) > 0 && (best == nil || s.before(p.found[0].Written, best.found[0].Written)) {
			best = p
		}
	}
	for _, p := range s.sides {
		if len(p.found) == 0 && !p.exhausted() && (best == nil || p.edge.IsZero() || s.before(p.edge, best.found[0].Written)) {
			unsure = append(unsure, p)
		}
	}
	return best, unsure
}

// before reports whether a letter written at a comes before one written at b.
func (s *search) before(a, b time.Time) bool {
	if s.query.Oldest {
		return a.Before(b)
	}
	return a.After(b)
}

// read reads the next piece of some partitions, side by side.
func (s *search) read(ctx context.Context, sides []*side) error {
	pieces := make([]piece, len(sides))
	for i, p := range sides {
		n := min(p.size, p.unread.To-p.unread.From)
		if s.query.Scan > 0 {
			n = min(n, max(1, s.left/int64(len(sides)-i)))
		}
		s.left -= n
		p.size = min(4*p.size, largestRead)
		pieces[i].Stretch = p.unread
		if s.query.Oldest {
			pieces[i].To = p.unread.From + n
			p.unread.From += n
		} else {
			pieces[i].From = p.unread.To - n
			p.unread.To -= n
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range pieces {
		group.Go(func() error { return s.readPiece(ctx, &pieces[i]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, p := range sides {
		p.found = append(p.found, pieces[i].found...)
		s.page.Records += pieces[i].records
		switch one := &pieces[i]; {
		case one.records == 0: // markers of transactions, or gone
		case s.query.Oldest:
			p.edge = one.last
		default:
			p.edge = one.first
		}
	}
	return nil
}

// A piece is what was read of a partition in one go.
type piece struct {
	Stretch
	records     int64
	first, last time.Time // when the first and the last record were written
	found       []*Letter
}

func (s *search) readPiece(ctx context.Context, one *piece) error {
	err := s.reader.records(ctx, one.Stretch, func(r *events.Record) error {
		if one.records++; one.records == 1 {
			one.first = r.Time
		}
		one.last = r.Time
		if l, err := parse(r); err == nil && s.matcher.takes(l) {
			l.strip()
			one.found = append(one.found, l)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !s.query.Oldest {
		slices.Reverse(one.found)
	}
	if s.query.Keep != nil && len(one.found) > 0 {
		one.found, err = s.query.Keep(ctx, one.found)
	}
	return err
}

// finish says how far the page looked, and where the next one begins.
func (s *search) finish() (*Page, error) {
	next := cursor{Oldest: s.query.Oldest, At: places{}}
	more := false
	for _, p := range s.sides {
		more = more || len(p.found) > 0 || !p.exhausted()
		looked := Looked{Topic: p.log.Topic, Partition: p.log.Partition, LogFrom: p.log.From, LogTo: p.log.To}
		if s.query.Oldest {
			looked.From, looked.To = p.begun, p.unread.From
			if len(p.found) > 0 {
				looked.To = p.found[0].Place.Offset
			}
			next.At.set(p.log, looked.To)
		} else {
			looked.From, looked.To = p.unread.To, p.begun
			if len(p.found) > 0 {
				looked.From = p.found[0].Place.Offset + 1
			}
			next.At.set(p.log, looked.From)
		}
		s.page.Looked = append(s.page.Looked, looked)
	}
	if more {
		s.page.Next = next.encode()
	}
	return &s.page, nil
}

// A cursor is where a page ends. It stays right while letters are added.
type cursor struct {
	Oldest bool   `json:"o,omitempty"`
	At     places `json:"at"`
}

// places are offsets by topic and partition.
type places map[string]map[int]int64

func (p places) set(log Stretch, offset int64) {
	if p[log.Topic] == nil {
		p[log.Topic] = map[int]int64{}
	}
	p[log.Topic][log.Partition] = offset
}

func (c cursor) encode() string {
	text, err := json.Marshal(c)
	if err != nil {
		return "" // strings and integers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// CursorError says that a cursor is none, or is of pages in the other order.
type CursorError struct{ problem string }

func (e *CursorError) Error() string { return "the cursor " + e.problem }

func decodeCursor(text string, oldest bool) (places, error) {
	if text == "" {
		return nil, nil
	}
	var c cursor
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	switch {
	case err != nil:
		return nil, &CursorError{fmt.Sprintf("is not one that a page ended with: %v", err)}
	case c.Oldest != oldest:
		return nil, &CursorError{"is of pages in the other order"}
	}
	return c.At, nil
}
