package verify

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

// An unexplained is a record that the inbox did not explain at first sight.
type unexplained struct {
	topic, partition int
	offset           int64
	key              string
	event            *events.Envelope
	id               uuid.UUID
	isLast           bool // of the records with its id
}

// explain reads what is left once more, with the events that caused it, and says what is wrong with it.
func (c *resultCheck) explain(ctx context.Context) error {
	if len(c.found) == 0 {
		return nil
	}
	const batch = 500
	var some []unexplained
	flush := func() error {
		err := c.judge(ctx, some)
		some = some[:0]
		return err
	}
	err := c.read(ctx, func(topic int, r *events.Record, _ *events.Envelope, id uuid.UUID) error {
		s := c.found[id]
		if s == nil {
			return nil
		}
		kept := kafka.CopyRecord(r)
		e, err := events.ParseEnvelope(&kept)
		if err != nil {
			return err
		}
		some = append(some, unexplained{topic: topic, partition: r.Partition, offset: r.Offset, key: string(r.Key), event: e, id: id,
			isLast: s.topic == topic && s.partition == r.Partition && s.offset == r.Offset})
		if len(some) < batch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// judge says what is wrong with some records.
func (c *resultCheck) judge(ctx context.Context, some []unexplained) error {
	if len(some) == 0 {
		return nil
	}
	var ids []postgres.EventID
	for i := range some {
		ids = append(ids, causeOf(some[i].event))
	}
	rows, err := c.v.cfg.Tenants.RecordedOf(ctx, ids)
	if err != nil {
		return err
	}
	for i := range some {
		u := &some[i]
		row := rows[causeOf(u.event)]
		f := c.verdict(u, row)
		if f == nil || row != nil && row.Repeats() && !u.isLast {
			continue // of what fell due again, the last record is the one that the inbox has
		}
		if c.named[u.id] {
			continue // it is there several times, and named once
		}
		c.named[u.id] = true
		c.findings.add(*f)
	}
	return nil
}

func causeOf(e *events.Envelope) postgres.EventID {
	return postgres.EventID{Source: e.CausationSource, ID: e.CausationID}
}

// verdict is what is wrong with a record, by the row of the event that is said to have caused it; nil: nothing.
func (c *resultCheck) verdict(u *unexplained, row *postgres.Recorded) *Finding {
	f := &Finding{Where: where(c.v.cfg.TopicPrefix+c.topics[u.topic].name, u.partition, u.offset), Event: u.event.Source + " " + u.event.ID}
	say := func(kind Kind, format string, args ...any) *Finding {
		f.Kind, f.Detail = kind, fmt.Sprintf(format, args...)
		return f
	}
	cause := fmt.Sprintf("the event %s of %s", u.event.CausationID, u.event.CausationSource)
	if row == nil {
		return say(ForeignResult, "%s of company %s: its cause is %s, and the inbox knows none that is done", u.event.Type, u.key, cause)
	}
	if row.Faulty || row.Unreadable != "" {
		return nil // named already; nothing can be said of what it has led to
	}
	print := meaningOf(u.key, u.event)
	for _, one := range row.Results {
		if one.Event == nil || one.Event.ID != u.event.ID {
			continue
		}
		if one.Topic == c.topics[u.topic].name && meaningOf(one.Key, one.Event) == print {
			return nil // spelt otherwise, or the record that is right beside one that is not
		}
		return say(AlteredResult, "%s of company %s says something else than the inbox does of what %s has led to", u.event.Type, u.key, cause)
	}
	if (row.Forgotten || row.Repeats()) && c.derived.gives(causeOf(u.event), u.event.Type, u.event.ID) {
		return nil // as it was published then
	}
	for _, one := range row.Results {
		if one.Event != nil && one.Topic == c.topics[u.topic].name && meaningOf(one.Key, one.Event) == print {
			return say(DoubledResult, "%s of company %s is the result %s of %s once more, under another id", u.event.Type, u.key, one.Event.ID, cause)
		}
	}
	return say(ForeignResult, "%s of company %s: %s has led to no such result", u.event.Type, u.key, cause)
}

// meaningOf is printOf with the data as what it says, however it is written.
func meaningOf(key string, e *events.Envelope) uint64 {
	plain := *e
	sum := sumOf(e.Data)
	plain.Data = sum[:]
	return printOf(key, &plain)
}

// A derivation makes the ids that results of one event and type have.
type derivation struct {
	of   postgres.EventID
	kind string
	ids  map[string]struct{}
}

// maxOrdinal bounds how many results of one type an event can have: one for every user of a company, say.
const maxOrdinal = 1 << 20

// gives reports whether an id is one of those that results of an event and type may have.
func (d *derivation) gives(of postgres.EventID, kind, id string) bool {
	if d.of != of || d.kind != kind {
		d.of, d.kind, d.ids = of, kind, map[string]struct{}{}
	}
	for {
		if _, ok := d.ids[id]; ok {
			return true
		}
		next := len(d.ids)
		if next >= maxOrdinal {
			return false
		}
		for n := next; n < 2*next+64; n++ {
			d.ids[events.ResultID(of.Source, of.ID, kind, n)] = struct{}{}
		}
	}
}
