package verify

import (
	"context"
	"fmt"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// checkLog compares the log with the rows and the dead letters, partition after partition.
func (v *Verifier) checkLog(ctx context.Context, at *positions, report *Report) error {
	report.Notes = append(report.Notes, at.notes...)
	// Counted before the ends of the log are read: a row that is behind an end read later was never in the log.
	counts, other, err := v.storedRows(ctx, at)
	if err != nil {
		return err
	}
	report.OtherTopics = int64(other) // #nosec G115 -- a number of rows
	l := &letters{v: v, at: at, report: report, first: true, mismatches: map[events.Origin]struct{}{}}
	if err := l.load(ctx, 0, 0); err != nil {
		return err
	}
	c := &logCheck{v: v, report: report, letters: l, workspace: newWorkspace()}
	for i := range at.partitions {
		r := at.partitions[i].judged()
		c.total += r.To - r.From
	}
	for i := range at.partitions {
		p := &at.partitions[i]
		if err := c.partition(ctx, p, counts[p.Partition]); err != nil {
			return err
		}
		delete(counts, p.Partition)
	}
	for id, s := range counts {
		report.Findings.add(Finding{Kind: BeyondLog, Where: fmt.Sprintf("%s/%d", v.cfg.Topic, id),
			Detail: fmt.Sprintf("%d rows come from a partition that the topic does not have", s.rows)})
	}
	c.noteNothingConsumed(at)
	report.Findings = report.Findings.Sorted()
	return nil
}

// A logCheck is the comparison of one topic under way.
type logCheck struct {
	v         *Verifier
	report    *Report
	letters   *letters
	workspace *workspace

	done, total int64 // offsets
}

// noteNothingConsumed makes sure that a run that had nothing to judge does not look like one that judged and passed.
func (c *logCheck) noteNothingConsumed(at *positions) {
	held := int64(0)
	for _, p := range at.partitions {
		if p.Committed >= 0 {
			return
		}
		held += p.log.To - p.judged().From
	}
	if held > 0 {
		c.report.Findings.add(Finding{Kind: NotConsumed, Where: c.v.cfg.Topic,
			Detail: fmt.Sprintf("group %s has committed nothing of %d offsets: is it the right group, and has the service run?", c.v.cfg.Group, held)})
	}
}

// partition checks one partition.
func (c *logCheck) partition(ctx context.Context, p *position, s stored) error {
	v := c.v
	log, err := kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, p.Partition)
	if err != nil {
		return err
	}
	part := Partition{
		Partition: p.Partition, LogStart: p.log.From, From: p.judged().From, Committed: p.Committed, LogEnd: log.To,
		Pending:     min(max(0, p.PendingTo-p.Committed), max(0, log.To-p.Committed)),
		RowsBefore:  int64(s.before), // #nosec G115 -- a number of rows
		RowsAfter:   int64(s.after),  // #nosec G115 -- a number of rows
		NotConsumed: max(0, log.To-max(p.Committed, p.log.From)),
	}
	found := Findings{}
	if err := c.ends(ctx, p, s, log, &found); err != nil {
		return err
	}
	for r := p.judged(); r.From < r.To; {
		to, err := c.letters.cover(ctx, p.Partition, r.From, min(r.To, r.From+v.cfg.Stretch))
		if err != nil {
			return err
		}
		judged, err := c.stretch(ctx, p.Partition, kafka.Range{From: r.From, To: to})
		if err != nil {
			return err
		}
		log, err := kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, p.Partition)
		if err != nil {
			return err
		}
		if log.From > r.From {
			// Retention has cut into the stretch while it was read. What is left of it is judged again.
			next := min(log.From, r.To)
			c.done += next - r.From
			part.LogStart, part.From, r.From = log.From, next, next
			continue
		}
		part.Judged += to - r.From
		part.Rows += judged.stored
		part.Duplicates += judged.duplicates
		part.DeadLetters += judged.deadLetters
		part.Expired += judged.expired
		part.NoEvent += to - r.From - judged.events
		part.Missing += judged.findings.Count(Missing)
		found.merge(judged.findings)
		r.From = to
	}
	for _, g := range found {
		if !g.Information {
			part.Differences += g.Count
		}
	}
	c.report.Findings.merge(found)
	c.report.Partitions = append(c.report.Partitions, part)
	return nil
}

// ends looks at what lies outside of the log.
func (c *logCheck) ends(ctx context.Context, p *position, s stored, log kafka.Range, found *Findings) error {
	v := c.v
	place := fmt.Sprintf("%s/%d", v.cfg.Topic, p.Partition)
	if s.rows > 0 && s.newest >= log.To {
		var n uint64
		err := v.conn.QueryRow(ctx, "SELECT count() FROM usage_tracking WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset <= ?",
			v.cfg.Topic, p.Partition, log.To, s.newest).Scan(&n)
		if err != nil {
			return fmt.Errorf("count the rows beyond the end of %s: %w", place, err)
		}
		found.add(Finding{Kind: BeyondLog, Where: place,
			Detail: fmt.Sprintf("%d rows have offsets from %d to %d, but the log ends at %d: the topic was deleted and created again, or truncated", n, log.To, s.newest, log.To)})
	}
	if p.Committed > log.To {
		found.add(Finding{Kind: BeyondLog, Where: place,
			Detail: fmt.Sprintf("the group has committed %d, but the log ends at %d: the topic was deleted and created again, or truncated", p.Committed, log.To)})
	}
	if p.Committed >= 0 && p.Committed < p.log.From {
		found.add(Finding{Kind: LostUnread, Where: place,
			Detail: fmt.Sprintf("the group has committed %d, but the log begins at %d: %d offsets were dropped before they were read", p.Committed, p.log.From, p.log.From-p.Committed)})
	}
	return nil
}

// stretch judges the offsets of r, which are all before the committed one.
func (c *logCheck) stretch(ctx context.Context, partition int, r kafka.Range) (*judgement, error) {
	rows, err := c.v.rowsOf(ctx, partition, r.From, r.To)
	if err != nil {
		return nil, err
	}
	defer rows.close()
	j := newJudgement(c, partition, rows, c.letters.of(partition, r.From, r.To))
	err = kafka.ReadLog(ctx, c.v.cfg.Client, c.v.cfg.Topic, partition, r, j.record(ctx))
	if err != nil {
		return nil, fmt.Errorf("compare %s/%d %s: %w", c.v.cfg.Topic, partition, r, err)
	}
	if err := j.finish(ctx); err != nil {
		return nil, fmt.Errorf("compare %s/%d %s: %w", c.v.cfg.Topic, partition, r, err)
	}
	c.done += r.To - r.From
	return j, nil
}

// progress reports how far the comparison is.
func (c *logCheck) progress(more, found int64) {
	c.v.cfg.Progress(Progress{Stage: "log", Done: c.done + more, Total: c.total, Differences: c.report.Differences() + found})
}
