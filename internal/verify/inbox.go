package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tenant"
	"tenantflow/internal/totals"
	"tenantflow/sinks/postgres"
)

// Inbox is what was compared of a log of company or subscription events with the inbox.
type Inbox struct {
	Topic       string `json:"topic"`
	Group       string `json:"group"`
	Judged      int64  `json:"judged"`       // events before the committed offsets
	InInbox     int64  `json:"in_inbox"`     // of these
	DeadLetters int64  `json:"dead_letters"` // of these
	Schedule    int64  `json:"schedule"`     // events of the service's own schedule, which need leave no trace
	NotConsumed int64  `json:"not_consumed"` // offsets from the committed ones on: not judged
	TooOld      int64  `json:"too_old"`      // events whose dead letter, if they had one, may be gone: not judged
}

// An inboxCheck is the comparison of one log with the inbox under way.
type inboxCheck struct {
	v       *Verifier
	topic   string // with prefix
	decoder *events.Decoder
	letters map[int]map[int64][]letter // by the partition and the offset they name
	held    time.Time                  // since when the topic of dead letters holds all of them; zero: it always has
	counted Inbox

	waiting  []inboxEvent // to be looked up together
	findings Findings
}

// An inboxEvent is a record that should be in the inbox, or a dead letter.
type inboxEvent struct {
	partition int
	offset    int64
	time      time.Time // of the record
	event     *events.Event
	why       string // it can't be understood; empty: it can
}

// checkInboxes compares the logs of company and subscription events with the inbox: every event before the committed offset is there, or is
// a dead letter.
func (v *Verifier) checkInboxes(ctx context.Context, report *Report) error {
	for _, one := range []struct{ topic, group string }{{events.TopicCompany, v.cfg.CompanyGroup}, {events.TopicSubscription, v.cfg.SubscriptionGroup}} {
		topic := v.cfg.TopicPrefix + one.topic
		v.cfg.Progress(Progress{Stage: one.topic, Differences: report.Differences()})
		err := v.checkInbox(ctx, report, topic, one.group)
		if errors.Is(err, ErrNotThere) {
			report.note("there is no topic %s, so it is not compared with the inbox", topic)
			continue
		}
		var reason *errUnproven
		if errors.As(err, &reason) {
			report.Unproven = append(report.Unproven, reason.reason)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *Verifier) checkInbox(ctx context.Context, report *Report, topic, group string) error {
	// Before anything else is read: what they cover has had its effects.
	positions, _, err := totals.ReadPositions(ctx, v.cfg.Client, group, topic)
	if err != nil {
		return err
	}
	decoder, err := events.NewDecoder(v.cfg.TopicPrefix)
	if err != nil {
		return err
	}
	c := &inboxCheck{v: v, topic: topic, decoder: decoder, letters: map[int]map[int64][]letter{}, counted: Inbox{Topic: topic, Group: group}}
	if err := c.readLetters(ctx, group); err != nil {
		return err
	}
	for _, p := range positions {
		log, err := kafka.Bounds(ctx, v.cfg.Client, topic, p.Partition)
		if err != nil {
			return err
		}
		from, err := v.begins(ctx, topic, p.Partition, log, 0)
		if err != nil {
			return err
		}
		c.counted.NotConsumed += max(0, log.To-max(p.Committed, log.From))
		r := kafka.Range{From: from, To: min(p.Committed, log.To)}
		if err := kafka.ReadLog(ctx, v.cfg.Client, topic, p.Partition, r, func(r *events.Record) error { return c.record(ctx, r) }); err != nil {
			return fmt.Errorf("compare %s/%d with the inbox: %w", topic, p.Partition, err)
		}
		if err := c.lookUp(ctx); err != nil {
			return err
		}
		if log, err = kafka.Bounds(ctx, v.cfg.Client, topic, p.Partition); err != nil {
			return err
		}
		c.foreignLetters(p.Partition, kafka.Range{From: max(r.From, log.From), To: r.To}) // retention may have cut the log meanwhile
	}
	report.Inboxes = append(report.Inboxes, c.counted)
	report.Findings.merge(c.findings)
	return nil
}

// readLetters reads the dead letters of the topic.
func (c *inboxCheck) readLetters(ctx context.Context, group string) error {
	topic := events.DeadLetterTopic(c.topic)
	ids, err := totals.PartitionsOf(ctx, c.v.cfg.Client, topic)
	if errors.Is(err, ErrNotThere) {
		return nil
	}
	if err != nil {
		return err
	}
	held := 0
	for _, id := range ids {
		log, err := kafka.Bounds(ctx, c.v.cfg.Client, topic, id)
		if err != nil {
			return err
		}
		if log.From > 0 {
			first, err := c.v.firstOf(ctx, topic, id, log)
			if err != nil {
				return err
			}
			if first.IsZero() {
				first = time.Now() // whatever it held is gone
			}
			if first.After(c.held) {
				c.held = first
			}
		}
		if log.From, err = c.v.begins(ctx, topic, id, log, clockSlack); err != nil {
			return err
		}
		err = kafka.ReadLog(ctx, c.v.cfg.Client, topic, id, log, func(r *events.Record) error {
			d, err := events.ParseDeadLetter(r)
			if err != nil || d.Topic != c.topic || d.Group != group {
				return nil //nolint:nilerr // it is no letter of this log
			}
			if held++; held > c.v.cfg.Letters {
				return unproven("%s holds more than %d dead letters: %s is not compared with the inbox", topic, c.v.cfg.Letters, c.topic)
			}
			if c.letters[d.Partition] == nil {
				c.letters[d.Partition] = map[int64][]letter{}
			}
			c.letters[d.Partition][d.Offset] = append(c.letters[d.Partition][d.Offset], letterOf(d))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// record takes a record in that should be in the inbox, or a dead letter.
func (c *inboxCheck) record(ctx context.Context, r *events.Record) error {
	c.counted.Judged++
	own, lettered := c.letters[r.Partition][r.Offset], false
	e := inboxEvent{partition: r.Partition, offset: r.Offset, time: r.Time}
	for i := range own {
		if own[i].preserves(r) {
			own[i].matched, lettered = true, true
		}
	}
	if lettered {
		c.counted.DeadLetters++
		return nil
	}
	kept := kafka.CopyRecord(r)
	var err error
	if e.event, err = c.decoder.Decode(&kept); err != nil {
		e.why = err.Error()
		envelope, err := events.ParseEnvelope(&kept)
		if err != nil {
			c.miss(&e, "no event", "no dead letter, and it is no event: "+err.Error())
			return nil //nolint:nilerr // it is a finding
		}
		// An earlier version may have understood it: its identity counts.
		e.event = &events.Event{Envelope: events.Envelope{Source: envelope.Source, ID: envelope.ID}}
	}
	if events.IsDue(e.event.Type) && e.event.Source == tenant.DueSource {
		c.counted.Schedule++
		return nil
	}
	c.waiting = append(c.waiting, e)
	const together = 1000
	if len(c.waiting) < together {
		return nil
	}
	return c.lookUp(ctx)
}

// lookUp looks for the gathered events in the inbox.
func (c *inboxCheck) lookUp(ctx context.Context) error {
	if len(c.waiting) == 0 {
		return nil
	}
	all := make([]*events.Event, len(c.waiting))
	for i := range c.waiting {
		all[i] = c.waiting[i].event
	}
	known, err := c.v.cfg.Tenants.Know(ctx, all)
	if err != nil {
		return err
	}
	for i := range c.waiting {
		e := &c.waiting[i]
		name := e.event.Source + " " + e.event.ID
		switch known[i] {
		case postgres.EventKnown:
			c.counted.InInbox++
		case postgres.EventOther:
			c.miss(e, name, "no dead letter, and the inbox has another event of this identity")
		case postgres.EventUnknown:
			detail := "neither in the inbox nor a dead letter"
			if e.why != "" {
				detail += "; it can't be understood: " + e.why
			}
			c.miss(e, name, detail)
		}
	}
	c.waiting = c.waiting[:0]
	return nil
}

func (c *inboxCheck) miss(e *inboxEvent, name, detail string) {
	if e.time.Before(c.held) {
		c.counted.TooOld++
		return
	}
	c.findings.add(Finding{Kind: Unapplied, Where: where(c.topic, e.partition, e.offset), Event: name, Detail: detail})
}

// foreignLetters names the letters of the judged offsets whose bytes the log does not hold.
func (c *inboxCheck) foreignLetters(partition int, judged kafka.Range) {
	for offset, all := range c.letters[partition] {
		for _, l := range all {
			if !l.matched && offset >= judged.From && offset < judged.To {
				c.findings.add(Finding{Kind: ForeignLetter, Where: where(c.topic, partition, offset),
					Detail: fmt.Sprintf("a dead letter (%s) names this place, but the log holds other bytes there, or none", l.reason)})
			}
		}
	}
}
