package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
)

// A letter is a dead letter, reduced to its origin and a hash of the bytes it preserves.
type letter struct {
	partition int
	offset    int64
	bytes     uint64 // its ContentHash, or largeOf
	large     bool   // it stands for bytes that fit into no dead letter
	reason    events.Reason
	matched   bool // the log holds these bytes at its origin
}

func (l *letter) compare(o letter) int {
	return cmp.Or(cmp.Compare(l.partition, o.partition), cmp.Compare(l.offset, o.offset), cmp.Compare(l.bytes, o.bytes))
}

// letters are the dead letters of the judged offsets, in the order of partitions and offsets, as many as fit: those
// from the beginning up to the horizon. What lies beyond is read from the topic once more when it is needed.
type letters struct {
	v       *Verifier
	at      *positions
	held    []letter
	horizon *letter // nil: everything is held
	report  *Report
	first   bool // the first reading; later ones count nothing

	mismatches map[events.Origin]struct{}
}

// load reads the dead letters from (partition, offset) on.
func (l *letters) load(ctx context.Context, partition int, offset int64) error {
	l.held, l.horizon = l.held[:0], nil
	from := letter{partition: partition, offset: offset}
	topic := events.DeadLetterTopic(l.v.cfg.Topic)
	ids, err := totals.PartitionsOf(ctx, l.v.cfg.Client, topic)
	if errors.Is(err, ErrNotThere) {
		if l.first {
			l.report.note("there is no topic %s, so no event counts as a dead letter", topic)
			l.first = false
		}
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range ids {
		log, err := kafka.Bounds(ctx, l.v.cfg.Client, topic, id)
		if err != nil {
			return err
		}
		if l.first {
			l.report.DeadLetters.Gone += log.From
		}
		if log.From, err = l.v.begins(ctx, topic, id, log, clockSlack); err != nil {
			return err
		}
		err = kafka.ReadLog(ctx, l.v.cfg.Client, topic, id, log, func(r *events.Record) error {
			l.take(r, from)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
	}
	l.cut()
	l.first = false
	return nil
}

// take keeps a record of the dead letter topic if it is a letter that is looked for.
func (l *letters) take(r *events.Record, from letter) {
	if l.first {
		l.report.DeadLetters.Read++
	}
	d, err := events.ParseDeadLetter(r)
	if err != nil {
		if l.first {
			l.report.DeadLetters.NoLetters++
		}
		return
	}
	if d.Topic != l.v.cfg.Topic {
		return
	}
	if d.Group != l.v.cfg.Group {
		if l.first && d.Reason == events.TenantMismatch {
			l.mismatch(d)
		}
		return
	}
	p := slices.IndexFunc(l.at.partitions, func(p position) bool { return p.Partition == d.Partition })
	if p < 0 {
		return
	}
	if r := l.at.partitions[p].judged(); d.Offset < r.From || d.Offset >= r.To {
		return
	}
	n := letterOf(d)
	if n.compare(from) < 0 || l.horizon != nil && n.compare(*l.horizon) >= 0 {
		return
	}
	l.held = append(l.held, n)
	if len(l.held) >= 2*l.v.cfg.Letters {
		l.cut()
	}
}

// mismatch notes the quota consumer's refusal of an event whose user belonged to another company: its row stays.
func (l *letters) mismatch(d *events.DeadLetter) {
	if _, known := l.mismatches[d.Origin]; known || len(l.mismatches) >= l.v.cfg.Letters {
		return
	}
	l.mismatches[d.Origin] = struct{}{}
	l.report.Findings.add(Finding{Kind: TenantMismatch, Where: where(d.Topic, d.Partition, d.Offset),
		Detail: fmt.Sprintf("stored, and not counted by %s: %s", d.Group, d.Detail)})
}

// cut sorts what is held, leaves out duplicates (a letter may be written again after a crash) and lets go
// what is too much, the last first. Letters of one origin stay together.
func (l *letters) cut() {
	slices.SortFunc(l.held, func(a, b letter) int { return a.compare(b) })
	l.held = slices.CompactFunc(l.held, func(a, b letter) bool { return a.compare(b) == 0 })
	if len(l.held) <= l.v.cfg.Letters {
		return
	}
	last := l.held[l.v.cfg.Letters]
	horizon := letter{partition: last.partition, offset: last.offset}
	keep, _ := slices.BinarySearchFunc(l.held, horizon, func(a, b letter) int { return a.compare(b) })
	if keep == 0 { // more letters of one origin than the limit
		return
	}
	l.held, l.horizon = l.held[:keep], &horizon
}

// cover makes the letters from (partition, from) on available, and returns up to which offset they are.
func (l *letters) cover(ctx context.Context, partition int, from, to int64) (int64, error) {
	start := letter{partition: partition, offset: from}
	if l.horizon != nil && start.compare(*l.horizon) >= 0 {
		if err := l.load(ctx, partition, from); err != nil {
			return 0, err
		}
	}
	if l.horizon != nil && l.horizon.partition == partition {
		to = min(to, l.horizon.offset)
	}
	return to, nil
}

// of returns the letters whose origin lies in [from, to) of a partition.
func (l *letters) of(partition int, from, to int64) []letter {
	find := func(offset int64) int {
		i, _ := slices.BinarySearchFunc(l.held, letter{partition: partition, offset: offset}, func(a, b letter) int { return a.compare(b) })
		return i
	}
	return l.held[find(from):find(to)]
}

func letterOf(d *events.DeadLetter) letter {
	l := letter{partition: d.Partition, offset: d.Offset, reason: d.Reason, large: d.Large != nil}
	if l.large {
		l.bytes = largeOf(d.Large.KeySHA256, d.Large.ValueSHA256)
	} else {
		l.bytes = d.ContentHash()
	}
	return l
}

// preserves reports whether a letter holds the very bytes of a record, or their hashes.
func (l *letter) preserves(r *events.Record) bool {
	if r.Large != nil {
		return l.large && l.bytes == largeOf(r.Large.KeySHA256, r.Large.ValueSHA256)
	}
	if l.large {
		key, value := sha256.Sum256(r.Key), sha256.Sum256(r.Value)
		return l.bytes == largeOf(hex.EncodeToString(key[:]), hex.EncodeToString(value[:]))
	}
	return l.bytes == r.ContentHash()
}

func largeOf(key, value string) uint64 { return xxhash.Sum64String(key + value) }
