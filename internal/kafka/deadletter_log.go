package kafka

import (
	"context"
	"log/slog"

	"tenantflow/events"
	"tenantflow/internal/logs"
	"tenantflow/internal/trace"
)

// letterKind is what the log tells dead letters apart by; the metric does too.
type letterKind struct {
	topic  string
	reason events.Reason
}

// origin is what the log says of a dead letter.
type origin struct {
	partition int
	offset    int64
	id        []byte // of the event, if its record has it in a header
	detail    string
	record    events.Record // which may name a trace; of its own, because callers use their letters again
}

// newLetterTally logs a letter, or a flood of them by topic and reason: a producer that gets everything wrong may make a hundred
// thousand a second.
//
//nolint:contextcheck,nolintlint // the last line of a flood comes after the call that published it
func newLetterTally(log *slog.Logger) *logs.Tally[letterKind, origin] {
	ctx := context.Background()
	return logs.NewTally(
		func(k letterKind, o origin) {
			attrs := []slog.Attr{slog.String("topic", k.topic), slog.Int("partition", o.partition), slog.Int64("offset", o.offset)}
			if len(o.id) > 0 {
				attrs = append(attrs, slog.String("event_id", string(o.id)))
			}
			if id := trace.ID(&o.record); id != "" {
				attrs = append(attrs, slog.String("trace_id", id))
			}
			log.LogAttrs(ctx, slog.LevelWarn, "event went to the dead letters",
				append(attrs, slog.String("reason", string(k.reason)), slog.String("error", o.detail))...)
		},
		func(k letterKind, n int, first origin) {
			of := []any{slog.Int("partition", first.partition), slog.Int64("offset", first.offset), slog.String("event_id", string(first.id))}
			if id := trace.ID(&first.record); id != "" {
				of = append(of, slog.String("trace_id", id))
			}
			log.LogAttrs(ctx, slog.LevelWarn, "more events went to the dead letters", slog.String("topic", k.topic), slog.String("reason", string(k.reason)),
				slog.Int("events", n), slog.Duration("within", logs.TallyInterval), slog.Group("first", append(of, slog.String("error", first.detail))...),
				slog.String("metric", "tenantflow_dead_letters_total"))
		})
}

// eventID is the id of the event in a record of binary content mode, as the log shows it. It is a part of the record.
func eventID(r *events.Record) []byte {
	const most = 200 // a malformed one may have any length
	for i := range r.Headers {
		if h := &r.Headers[i]; h.Key == "ce_id" {
			return h.Value[:min(len(h.Value), most)]
		}
	}
	return nil
}

// note counts and logs letters that are published.
func (d *DeadLetters) note(letters []DeadLetter) {
	all := map[letterKind]int{}
	for i := range letters {
		l := &letters[i]
		k := letterKind{l.Record.Topic, l.Rejection.Reason}
		all[k]++
		d.tally.Add(k, origin{l.Record.Partition, l.Record.Offset, eventID(&l.Record), l.Rejection.Detail, l.Record})
	}
	if d.count == nil {
		return
	}
	for k, n := range all {
		d.count.WithLabelValues(k.topic, string(k.reason)).Add(float64(n))
	}
}
