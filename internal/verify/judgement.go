package verify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/sinks/clickhouse"
)

// A workspace is memory that is used for one stretch after the other.
type workspace struct {
	decoder *events.UsageDecoder
	hasher  hasher
	usage   events.Usage
	block   *clickhouse.Block
}

func newWorkspace() *workspace {
	// Whether a timestamp is too old or ahead of the clock was decided when the event was first read, by the service's
	// clock. Here every event counts that can be understood at all.
	const anyTime = 100 * 365 * 24 * time.Hour
	return &workspace{
		decoder: events.NewUsageDecoder(events.UsageLimits{FutureTolerance: anyTime, MaxAge: anyTime}),
		block:   clickhouse.NewBlock(),
	}
}

// lookUp is how many events without a row are gathered before they are looked up.
const lookUp = 50_000

// An unplaced is an event that has no row at its own place, while it waits to be looked up by identity.
type unplaced struct {
	offset    int64
	event     string
	timestamp int64     // milliseconds
	time      time.Time // of the record
	letter    bool      // it is a dead letter; the question is only whether that is settled
}

// A judgement goes through a stretch of the log, with its rows and its dead letters beside it, all in the order of
// their offsets.
type judgement struct {
	check     *logCheck
	partition int
	rows      *cursor
	letters   []letter
	*workspace

	now        time.Time
	unreadable string     // why the record at hand can't be a row; empty: usage holds its event
	unplaced   []unplaced // as many as the block has rows
	foreign    []int64    // places of foreign rows, to be described

	// The results.
	events, duplicates, deadLetters, expired int64
	stored                                   int64
	findings                                 Findings
}

func newJudgement(c *logCheck, partition int, rows *cursor, letters []letter) *judgement {
	c.workspace.block.Reset()
	for i := range letters {
		letters[i].matched = false
	}
	return &judgement{check: c, partition: partition, rows: rows, letters: letters, workspace: c.workspace, now: time.Now()}
}

func (j *judgement) where(offset int64) string {
	return where(j.check.v.cfg.Topic, j.partition, offset)
}

// record judges one record of the log.
func (j *judgement) record(ctx context.Context) func(*events.Record) error {
	return func(r *events.Record) error {
		j.events++
		if j.events%4096 == 0 {
			j.check.progress(j.events, j.findings.differences())
		}
		if err := j.noEventBefore(r.Offset); err != nil {
			return err
		}
		lettered := j.lettered(r)
		j.decode(r)
		own, err := j.rowsAt(r)
		switch {
		case err != nil:
			return err
		case own:
			j.stored++
			if lettered {
				j.find(RowAndDeadLetter, r.Offset, j.eventOf(r), "settled: the event is a row and a dead letter, and the row decides")
			}
			return nil
		case lettered:
			j.deadLetters++
		case j.unreadable != "":
			j.find(Missing, r.Offset, j.eventOf(r), fmt.Sprintf("no dead letter, and the event can't be a row: %s", j.unreadable))
			return nil
		}
		if j.unreadable != "" {
			return nil
		}
		u := &j.usage
		j.unplaced = append(j.unplaced, unplaced{offset: r.Offset, event: j.eventOf(r), timestamp: u.Timestamp, time: r.Time, letter: lettered})
		j.block.Append(u, u.IdentityHash(), r.Offset)
		if len(j.unplaced) >= lookUp {
			return j.lookUp(ctx)
		}
		return nil
	}
}

// decode reads a record's event into usage, or says in unreadable why it is none.
func (j *judgement) decode(r *events.Record) {
	j.unreadable = ""
	if err := j.decoder.Decode(r, r.Time, &j.usage); err != nil {
		j.unreadable = err.Error()
	}
}

// noEventBefore takes the rows before an offset: the log holds no event where they are.
func (j *judgement) noEventBefore(offset int64) error {
	for !j.rows.done && j.rows.at.offset < offset {
		j.foreignRow(j.rows.at.offset, "the log holds no event there")
		if err := j.rows.advance(); err != nil {
			return err
		}
	}
	return nil
}

// rowsAt takes the rows at the place of a record. It reports whether the event's own is among them.
func (j *judgement) rowsAt(r *events.Record) (own bool, err error) {
	copies, altered := 0, false
	for ; !j.rows.done && j.rows.at.offset == r.Offset; err = j.rows.advance() {
		if err != nil {
			return false, err
		}
		switch {
		case j.rows.at.identity != j.identityOf(r):
			j.foreignRow(r.Offset, "the log holds "+j.eventOf(r)+" there")
			continue
		case j.unreadable != "" || j.rows.at.content != j.hasher.content(&j.usage):
			altered = true
		}
		copies++
	}
	if altered {
		detail := "the row differs from its event"
		if j.unreadable != "" {
			detail = fmt.Sprintf("there is a row, but its event can't be one: %s", j.unreadable)
		}
		j.find(AlteredRow, r.Offset, j.eventOf(r), detail)
	}
	if copies > 1 {
		j.find(DoubledRow, r.Offset, j.eventOf(r), fmt.Sprintf("%d rows for one place in the log", copies))
	}
	return copies > 0, err
}

func (j *judgement) foreignRow(offset int64, detail string) {
	j.find(ForeignRow, offset, "", detail)
	if len(j.foreign) < 100 {
		j.foreign = append(j.foreign, offset)
	}
}

// lettered reports whether a record is a dead letter.
func (j *judgement) lettered(r *events.Record) bool {
	i, _ := slices.BinarySearchFunc(j.letters, letter{partition: j.partition, offset: r.Offset}, func(a, b letter) int { return a.compare(b) })
	found := false
	for ; i < len(j.letters) && j.letters[i].offset == r.Offset; i++ {
		if j.letters[i].preserves(r) {
			j.letters[i].matched, found = true, true
		}
	}
	return found
}

// lookUp finds out about the gathered events without a row whether their identity is stored from another place.
func (j *judgement) lookUp(ctx context.Context) error {
	if len(j.unplaced) == 0 {
		return nil
	}
	all := make([]int, len(j.unplaced))
	for i := range all {
		all[i] = i
	}
	matches, err := j.check.v.store.Find(ctx, j.block, all)
	if err != nil {
		return err
	}
	best := make(map[int]clickhouse.Match, len(matches)) // the same content before other content
	for _, m := range matches {
		if known, ok := best[m.Row]; !ok || m.Same && !known.Same {
			best[m.Row] = m
		}
	}
	for i := range j.unplaced {
		m, stored := best[i]
		j.decide(&j.unplaced[i], m, stored)
	}
	j.unplaced = j.unplaced[:0]
	j.block.Reset()
	return nil
}

// decide says what became of an event without a row at its place. A match says where its identity is stored.
func (j *judgement) decide(e *unplaced, m clickhouse.Match, stored bool) {
	place := where(m.Topic, m.Partition, m.Offset)
	switch {
	case e.letter:
		if stored && m.Same {
			j.find(RowAndDeadLetter, e.offset, e.event, "settled: the same event is stored from "+place)
		}
	case stored && m.Same:
		j.duplicates++
	case stored:
		j.find(Missing, e.offset, e.event, "neither row nor dead letter; the same identity is stored with other data from "+place)
	case j.isExpired(e):
		j.expired++
	default:
		j.find(Missing, e.offset, e.event, "neither row nor known duplicate nor dead letter")
	}
}

// isExpired reports whether a row of the event may have been there and left by its age. An event that was too old already
// when it was published could never be a row.
func (j *judgement) isExpired(e *unplaced) bool {
	const border = 24 * time.Hour
	at := time.UnixMilli(e.timestamp)
	return at.Before(j.now.Add(-events.DefaultMaxAge)) && at.After(e.time.Add(-events.DefaultMaxAge-border))
}

// finish judges what is left at the end of a stretch.
func (j *judgement) finish(ctx context.Context) error {
	for !j.rows.done {
		j.foreignRow(j.rows.at.offset, "the log holds no event there")
		if err := j.rows.advance(); err != nil {
			return err
		}
	}
	if err := j.lookUp(ctx); err != nil {
		return err
	}
	for _, l := range j.letters {
		if !l.matched {
			j.find(ForeignLetter, l.offset, "", fmt.Sprintf("a dead letter (%s) names this place, but the log holds other bytes there, or none", l.reason))
		}
	}
	return j.describeForeign(ctx)
}

// describeForeign says which events the foreign rows are of.
func (j *judgement) describeForeign(ctx context.Context) error {
	if len(j.foreign) == 0 {
		return nil
	}
	names, err := j.check.v.describe(ctx, j.partition, j.foreign)
	if err != nil {
		return err
	}
	g := j.findings.group(ForeignRow)
	for i := range min(len(j.foreign), len(g.Samples)) {
		g.Samples[i].Event = names[j.foreign[i]]
	}
	return nil
}

func (j *judgement) find(kind Kind, offset int64, event, detail string) {
	j.findings.add(Finding{Kind: kind, Where: j.where(offset), Event: event, Detail: detail})
}

// identityOf is the identity hash of a record, whether its data can be understood or not; 0 if it has no identity.
func (j *judgement) identityOf(r *events.Record) uint64 {
	if j.unreadable == "" {
		return j.usage.IdentityHash()
	}
	if e, err := events.ParseEnvelope(r); err == nil {
		return events.IdentityHash([]byte(e.Source), []byte(e.ID))
	}
	return 0
}

// eventOf names the event of a record in a finding.
func (j *judgement) eventOf(r *events.Record) string {
	if j.unreadable == "" {
		return string(j.usage.Source) + " " + string(j.usage.ID)
	}
	if e, err := events.ParseEnvelope(r); err == nil {
		return e.Source + " " + e.ID
	}
	return "no event"
}
