package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
)

// A twin is one row of an identity that has several.
type twin struct {
	source, id     string
	company, user  string
	timestamp      int64 // milliseconds
	content        uint64
	topic          string
	partition      int
	offset         int64
	insertBy       int64 // milliseconds
	part           string
	row            uint64 // number of the row in its part
	pending        bool
	judgedByPlaces bool // the comparison of the log with the rows has found it already
}

func (c *twin) sameIdentity(o *twin) bool { return c.source == o.source && c.id == o.id }

func (c *twin) samePlace(o *twin) bool {
	return c.topic == o.topic && c.partition == o.partition && c.offset == o.offset
}

// A double is a later row of an identity, and the first one, which stays.
type double struct {
	first, later twin
}

func (d *double) sameContent() bool {
	return d.first.content == d.later.content && d.first.timestamp == d.later.timestamp
}

// Passes over the table are made so that one has to group about this many identities at most.
const identitiesPerPass = 50_000_000

// maxDoubles is how many identities with several rows are listed in one round.
const maxDoubles = 10_000

// findDoubles looks for identities with more than one row, whatever company, user, time or place the rows have. The
// first row by deadline and then by place is the one that stays. Identities with a row that is under way are passed
// over: the service itself may be about to clear them up.
func (v *Verifier) findDoubles(ctx context.Context, at *positions, report *Report) ([]double, error) {
	var rows uint64
	recent, args := v.recentIdentities(at)
	if err := v.conn.QueryRow(totals.LongQuery(ctx, nil), "SELECT count() FROM usage_tracking WHERE "+recent, args...).Scan(&rows); err != nil {
		return nil, fmt.Errorf("count the rows: %w", err)
	}
	passes := rows/identitiesPerPass + 1
	var found []double
	for pass := range passes {
		v.cfg.Progress(Progress{Stage: "doubles", Done: int64(pass), Total: int64(passes), Differences: report.Differences()}) // #nosec G115 -- small
		doubled := statement("doubled", struct {
			Passes, Pass uint64
			Recent       string
		}{passes, pass, recent})
		var identities uint64
		if err := v.conn.QueryRow(totals.LongQuery(ctx, nil), "SELECT count() FROM ("+doubled+")", args...).Scan(&identities); err != nil {
			return nil, fmt.Errorf("look for identities with several rows: %w", err)
		}
		if identities == 0 {
			continue
		}
		twins, err := v.twins(ctx, at, fmt.Sprintf("%s ORDER BY identity LIMIT %d", doubled, maxDoubles), args)
		if err != nil {
			return nil, err
		}
		found = append(found, v.judgeTwins(report, twins)...)
		if identities > maxDoubles {
			report.Findings.raise(DoubledEvent, int64(identities-maxDoubles)) // #nosec G115 -- a number of rows
		}
	}
	return found, nil
}

// twins reads all rows of the identities, those of one identity together, the one that stays first.
func (v *Verifier) twins(ctx context.Context, at *positions, identities string, of []any) ([]twin, error) {
	pending, args := at.pending(v.cfg.Topic)
	answer, err := totals.Ask(totals.LongQuery(ctx, nil), v.conn, statement("twins", struct{ Pending, Identities string }{pending, identities}), totals.End{
		Row:   "'', '', '', '', toInt64(0), toUInt64(0), '', toUInt16(0), toInt64(0), toInt64(0), '', toUInt64(0), toUInt8(0)",
		Order: "source, event_id, insert_by, topic, partition, offset, part, row",
	}, slices.Concat(args, of)...)
	if err != nil {
		return nil, fmt.Errorf("read the rows of identities with several: %w", err)
	}
	var twins []twin
	for {
		var c twin
		var partition uint16
		var pending uint8
		if !answer.Next(&c.source, &c.id, &c.company, &c.user, &c.timestamp, &c.content,
			&c.topic, &partition, &c.offset, &c.insertBy, &c.part, &c.row, &pending) {
			break
		}
		c.partition = int(partition)
		c.pending = pending != 0 || !quiet(c.insertBy, at.now)
		c.judgedByPlaces = c.topic == v.cfg.Topic && at.judges(c.partition, c.offset)
		twins = append(twins, c)
	}
	if err := answer.Close(); err != nil {
		return nil, fmt.Errorf("read the rows of identities with several: %w", err)
	}
	return twins, nil
}

// judges reports whether a place is one that the comparison of the log with the rows has judged.
func (at *positions) judges(partition int, offset int64) bool {
	for i := range at.partitions {
		if p := &at.partitions[i]; p.Partition == partition {
			r := p.judged()
			return offset >= r.From && offset < r.To
		}
	}
	return false
}

// margin is how much longer than its deadline an insert may take to be seen: the server looks at the deadline when the
// query begins, and ends it in whole seconds.
const margin = 2 * time.Second

// quiet reports whether an insert with this deadline was over at a time, both by the server's clock.
func quiet(insertBy int64, now time.Time) bool {
	return time.UnixMilli(insertBy).Add(margin).Before(now)
}

// judgeTwins finds which rows are the later ones of an identity.
func (v *Verifier) judgeTwins(report *Report, twins []twin) []double {
	var found []double
	for i := 0; i < len(twins); {
		n := i + 1
		busy := twins[i].pending
		for ; n < len(twins) && twins[n].sameIdentity(&twins[i]); n++ {
			busy = busy || twins[n].pending
		}
		group := twins[i:n]
		i = n
		if busy {
			continue
		}
		for k := 1; k < len(group); k++ {
			d := double{first: group[0], later: group[k]}
			found = append(found, d)
			v.reportDouble(report, group[:k], &d)
		}
	}
	return found
}

// reportDouble adds the finding of a later row.
func (v *Verifier) reportDouble(report *Report, earlier []twin, d *double) {
	kind := DoubledEvent
	for i := range earlier {
		if earlier[i].samePlace(&d.later) {
			kind = DoubledRow
		}
	}
	if kind == DoubledRow && d.later.judgedByPlaces {
		return // counted there
	}
	detail := "the event is stored from " + where(d.first.topic, d.first.partition, d.first.offset) + " as well"
	if !d.sameContent() {
		detail += ", with other data"
	}
	report.Findings.add(Finding{Kind: kind, Where: where(d.later.topic, d.later.partition, d.later.offset),
		Event: d.later.source + " " + d.later.id, Detail: detail})
}

// removeDoubles deletes the later rows. A row with other data than the first is a conflict and gets the dead letter it
// should have got; where the log no longer holds its event, it stays for a person to decide about. The totals follow
// with the comparison of the aggregates.
func (v *Verifier) removeDoubles(ctx context.Context, doubles []double, mended *Repairs, removed totals.Sums) error {
	dead := kafka.NewDeadLetters(v.cfg.Client, v.cfg.Group, v.log, nil)
	var rows []twin
	alike := false // the row that stays has place and deadline of one that goes
	for i := range doubles {
		d := &doubles[i]
		if !d.sameContent() {
			letter, err := v.conflict(ctx, d)
			if err != nil {
				return err
			}
			if letter == nil {
				continue
			}
			// The letter first: a crash in between leaves a settled letter, not a lost event.
			if err := dead.Publish(ctx, []kafka.DeadLetter{*letter}, func(error) {}); err != nil {
				return err
			}
			mended.DeadLetters++
		}
		rows = append(rows, d.later)
		alike = alike || d.first.samePlace(&d.later) && d.first.insertBy == d.later.insertBy
	}
	if err := dead.Close(); err != nil {
		return fmt.Errorf("publish dead letters: %w", err)
	}
	if len(rows) == 0 {
		return nil
	}
	v.cfg.Progress(Progress{Stage: "repair", Total: int64(len(rows))})
	if err := v.store.QueueRechecks(ctx, v.rechecksOf(doubles)); err != nil {
		return err
	}
	return v.removeRows(ctx, rows, alike, mended, removed)
}

// conflict makes the dead letter of a row that carries a known identity with other data. It is nil when the log does not
// hold the row's event.
func (v *Verifier) conflict(ctx context.Context, d *double) (*kafka.DeadLetter, error) {
	if d.later.topic != v.cfg.Topic {
		return nil, nil //nolint:nilnil // another installation's log
	}
	var found *events.Record
	r := kafka.Range{From: d.later.offset, To: d.later.offset + 1}
	err := kafka.ReadLog(ctx, v.cfg.Client, v.cfg.Topic, d.later.partition, r, func(r *events.Record) error {
		if e, err := events.ParseEnvelope(r); err == nil && e.Source == d.later.source && e.ID == d.later.id {
			c := kafka.CopyRecord(r)
			found = &c
		}
		return nil
	})
	if err != nil || found == nil {
		return nil, err
	}
	return &kafka.DeadLetter{Record: *found, Attempts: 1, Rejection: events.Reject(events.Conflict,
		"an event with the same source and id and other data is stored, from %s; a resend must repeat the data, a new event needs a new id",
		where(d.first.topic, d.first.partition, d.first.offset))}, nil
}

// placesOf is the SQL condition that a row has place and deadline of one of the given rows.
func placesOf(rows []twin) (condition string, args []any) {
	type group struct {
		topic     string
		partition int
		insertBy  int64
	}
	var order []group
	offsets := map[group][]any{}
	for i := range rows {
		g := group{rows[i].topic, rows[i].partition, rows[i].insertBy}
		if offsets[g] == nil {
			order = append(order, g)
		}
		offsets[g] = append(offsets[g], rows[i].offset)
	}
	conditions := make([]string, len(order))
	for i, g := range order {
		conditions[i] = "_topic = ? AND _partition = ? AND toUnixTimestamp64Milli(_insert_by) = ? AND _offset IN ?"
		args = append(args, g.topic, g.partition, g.insertBy, chgo.GroupSet{Value: offsets[g]})
	}
	return strings.Join(conditions, " OR "), args
}
