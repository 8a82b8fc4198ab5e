package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"tenantflow/internal/fetch"
)

// A Mark names a record of a log by its offset and a hash of key, value and headers, xxhash with 64 bits. With every offset
// the mark of a record before it is committed, the last one where that is known. The next owner sees whether
// the log is the one that was read: an election of a replica that lagged behind, a power loss or a topic that was deleted
// and created again leave other records at the same offsets.
type Mark = fetch.Mark

// SplitMark takes the metadata of a committed offset apart: the runtime's mark, zero if there is none, and the handler's own
// metadata. The form is @OFFSET:HASH, the hash in 16 hexadecimal digits, and the handler's metadata behind a space.
func SplitMark(metadata string) (mark Mark, rest string) {
	text, ok := strings.CutPrefix(metadata, "@")
	if !ok {
		return Mark{}, metadata
	}
	text, rest, _ = strings.Cut(text, " ")
	offset, hash, _ := strings.Cut(text, ":")
	at, err := strconv.ParseInt(offset, 10, 64)
	if err != nil || at < 0 || len(hash) != 16 {
		return Mark{}, metadata
	}
	sum, err := strconv.ParseUint(hash, 16, 64)
	if err != nil {
		return Mark{}, metadata
	}
	return Mark{Offset: at, Hash: sum}, rest
}

// joinMark is the metadata that SplitMark takes apart. It has at most 38 bytes more than the handler's.
func joinMark(m Mark, rest string) string {
	if m.IsZero() {
		return rest
	}
	text := fmt.Sprintf("@%d:%016x", m.Offset, m.Hash)
	if rest == "" {
		return text
	}
	return text + " " + rest
}

// marks are the last marks of partitions that a member has read, for as long as it runs: some brokers forget the offsets of
// a topic, marks included, when it is deleted.
type marks struct {
	mu sync.Mutex
	at map[place]Mark
}

func (m *marks) of(p place) Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at[p]
}

// set remembers a mark. The zero mark forgets.
func (m *marks) set(p place, mark Mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mark.IsZero() {
		delete(m.at, p)
		return
	}
	if m.at == nil {
		m.at = map[place]Mark{}
	}
	m.at[p] = mark
}

// Recreated is the error that stops a partition whose log is not the one that was read, as what says.
func (p *Partition) Recreated(what string) error {
	return &StopError{Kind: "topic_recreated", Err: fmt.Errorf("%s: the topic was deleted and created again, or its log was cut, as by a power loss or the "+
		"election of a replica that lagged behind. Its offsets no longer name the events that were read. The partition is stopped. "+
		"Publish under another topic prefix, to new topics; what is stored stays, and stored events that are sent again are recognised", what)}
}

// checkEnd looks whether the log reaches as far as it did. Where it does not, and the operator has said how to go on at an
// offset that is out of range, the mark is of no more use.
func (p *Partition) checkEnd(ctx context.Context) error {
	if p.mark.IsZero() || p.bounds.To > p.mark.Offset {
		return nil
	}
	what := fmt.Sprintf("%s/%d was read up to offset %d and its log ends at %d", p.topic, p.id, p.mark.Offset, p.bounds.To)
	if p.group.cfg.OutOfRange == OutOfRangeStop {
		return p.Recreated(what)
	}
	p.Line(ctx, slog.LevelError, "the log was cut or recreated; going on, as configured for offsets out of range")
	p.mark = Mark{}
	return nil
}
