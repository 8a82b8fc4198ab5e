package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"tenantflow/internal/directory"
)

// A snapshot is what a statement sees of the transactions: all of them before the oldest one that was under way, and
// some of the later ones.
type snapshot struct {
	oldest uint64 // a transaction id, never 0
	text   string // as Postgres writes it, "oldest:next:under,way,..."
}

func readSnapshot(text string) (snapshot, error) {
	oldest, _, _ := strings.Cut(text, ":")
	id, err := strconv.ParseUint(oldest, 10, 64)
	if err != nil {
		return snapshot{}, fmt.Errorf("read the snapshot %q: %w", text, err)
	}
	return snapshot{id, text}, nil
}

// A position in the feed is the oldest transaction of the reader's last snapshot, followed by a number, numberBits long,
// of the snapshot itself, which the Store remembers. The transaction is enough to miss nothing. The snapshot spares the
// reader what he has seen of younger transactions: with one that is open for an hour, in any database of the server,
// that would be all changes of that hour with every poll.
const numberBits = 20

// oldestAt is the transaction in a position.
func oldestAt(p directory.Position) uint64 { return uint64(p) >> numberBits }

// snapshotsKept is for how many readers, about, a Store remembers a snapshot.
const snapshotsKept = 64

// snapshots are those given out lately.
type snapshots struct {
	mu     sync.Mutex
	newest uint64 // the highest oldest transaction of all
	number uint64 // the last one used with newest
	kept   []numbered
}

type numbered struct {
	at   directory.Position
	text string
}

// forget begins anew, with a server whose transactions have other ids.
func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest, s.kept = 0, nil
}

// at returns the snapshot of a position, or nothing where it is not known.
func (s *snapshots) at(p directory.Position) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		if k.at == p {
			return k.text
		}
	}
	return ""
}

// keep remembers a snapshot for the reader who was at a position, and returns his new position, which is not lower.
func (s *snapshots) keep(reader directory.Position, seen snapshot) directory.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	const last = 1<<numberBits - 1
	number := s.number
	if seen.oldest > s.newest {
		number = 0
	}
	if oldestAt(reader) == seen.oldest {
		number = max(number, uint64(reader)&last) // his position may be of another Store
	}
	if seen.oldest < s.newest || number == last {
		// Another reader's newer snapshot came in between, or there have been too many of one transaction (a million
		// polls, days): no number is left that was surely never used. The reader is told some changes again.
		return max(reader, directory.Position(seen.oldest<<numberBits))
	}
	s.newest, s.number = seen.oldest, number+1
	p := directory.Position(seen.oldest<<numberBits | s.number)
	// A reader goes on from his last position only, so the longest unused goes.
	s.kept = slices.DeleteFunc(s.kept, func(k numbered) bool { return k.at == reader })
	if len(s.kept) == snapshotsKept {
		s.kept = s.kept[1:]
	}
	s.kept = append(s.kept, numbered{p, seen.text})
	return p
}
