package postgres

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tenantflow/internal/directory"
)

// A snapshot is what a statement sees of the transactions: those below next, but for the ones that were under way.
type snapshot struct {
	next     uint64
	underWay []uint64 // sorted
}

// readSnapshot reads a pg_snapshot as Postgres writes it, "oldest:next:under,way,...".
func readSnapshot(text string) (snapshot, error) {
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return snapshot{}, fmt.Errorf("read the snapshot %q", text)
	}
	next, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return snapshot{}, fmt.Errorf("read the snapshot %q: %w", text, err)
	}
	s := snapshot{next: next}
	if fields[2] == "" {
		return s, nil
	}
	for _, id := range strings.Split(fields[2], ",") {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return snapshot{}, fmt.Errorf("read the snapshot %q: %w", text, err)
		}
		s.underWay = append(s.underWay, n)
	}
	slices.Sort(s.underWay)
	return s, nil
}

// sees reports whether what the transaction has written is visible.
func (s snapshot) sees(id uint64) bool {
	_, underWay := slices.BinarySearch(s.underWay, id)
	return id < s.next && !underWay
}

// A span is a range of transaction ids, both ends in it.
type span struct{ low, high uint64 }

// unseen returns the transactions that s sees and an earlier snapshot does not, in their order. They are named, and not filtered out of
// all later ones: with one transaction that is open for an hour, in any database of the server, these would be all of that hour.
func (s snapshot) unseen(earlier snapshot) []span {
	var spans []span
	for _, id := range earlier.underWay {
		if s.sees(id) {
			spans = append(spans, span{id, id})
		}
	}
	low := earlier.next
	for _, id := range append(slices.Clone(s.underWay), s.next) {
		if id > low {
			spans = append(spans, span{low, id - 1})
		}
		low = max(low, id+1)
	}
	return spans
}

// A place is a position in the change feed. Everything that Seen sees was returned; of what Target sees beyond that, everything up to a
// transaction and version.
type place struct {
	Origin string `json:"origin"`
	Seen   string `json:"seen,omitempty"`   // empty: nothing was returned yet
	Target string `json:"target,omitempty"` // empty: there is nothing beyond Seen
	XID    uint64 `json:"xid,omitempty"`
	// Version is the last one returned of that transaction.
	Version int64 `json:"version,omitempty"`
}

func readPlace(p directory.Position) (place, error) {
	var at place
	if p == "" {
		return at, nil
	}
	if err := json.Unmarshal([]byte(p), &at); err != nil {
		return place{}, fmt.Errorf("read the position %q: %w", p, err)
	}
	return at, nil
}

func (p place) position() (directory.Position, error) {
	text, err := json.Marshal(p)
	return directory.Position(text), err
}

// left returns what of Target is still to be returned.
func (p place) left() ([]span, error) {
	var seen snapshot
	var err error
	if p.Seen != "" {
		if seen, err = readSnapshot(p.Seen); err != nil {
			return nil, err
		}
	}
	target, err := readSnapshot(p.Target)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(target.unseen(seen), func(s span) bool { return s.high < p.XID }), nil
}

// bounds returns the ends of spans.
func bounds(spans []span) (low, high []uint64) {
	for _, s := range spans {
		low, high = append(low, s.low), append(high, s.high)
	}
	return low, high
}
