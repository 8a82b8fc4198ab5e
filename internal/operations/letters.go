package operations

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tenantflow/events"
)

// letters counts dead letters as they come.
type letters struct {
	tail tail
	by   map[LetterKind]*letterTally
}

type letterTally struct {
	count  int64
	days   days
	newest time.Time
	err    string
}

// longestText is how much is kept of a text that others wrote, in bytes.
const longestText = 300

func newLetters(cfg Config) *letters {
	topics := make([]string, len(cfg.Inputs))
	for i, topic := range cfg.Inputs {
		topics[i] = events.DeadLetterTopic(topic)
	}
	return &letters{by: map[LetterKind]*letterTally{}, tail: tail{client: cfg.Kafka, topics: topics, depth: lettersDepth}}
}

func (l *letters) take(ctx context.Context) (Letters, error) {
	complete, err := l.tail.follow(ctx, tailPatience, l.add)
	if err != nil {
		return Letters{}, err
	}
	out := Letters{Depth: lettersDepth, Complete: complete, Reasons: make([]LetterCount, 0, len(l.by))}
	now := time.Now()
	for kind, t := range l.by {
		out.Total += t.count
		out.Reasons = append(out.Reasons, LetterCount{Topic: kind.Topic, Reason: kind.Reason, Count: t.count, LastDay: t.days.since(now), Newest: t.newest, Error: t.err,
			Command: fmt.Sprintf("tenantflow dlq ls --topic %s --reason %s --state open", quoted(kind.Topic), quoted(kind.Reason))})
	}
	slices.SortFunc(out.Reasons, func(a, b LetterCount) int {
		return cmp.Or(cmp.Compare(b.LastDay, a.LastDay), cmp.Compare(b.Count, a.Count), strings.Compare(a.Topic, b.Topic), strings.Compare(a.Reason, b.Reason))
	})
	return out, nil
}

func (l *letters) add(rec *events.Record) {
	d, err := events.ParseDeadLetter(rec)
	if err != nil {
		return // another program wrote it there
	}
	if !slices.Contains(events.Reasons(), d.Reason) {
		return // the reasons are a closed list; what is counted stays bounded
	}
	kind := LetterKind{d.Topic, string(d.Reason)}
	if from, ok := events.DeadLettersOf(rec.Topic); ok {
		kind.Topic = from
	}
	t := l.by[kind]
	if t == nil {
		t = &letterTally{days: days{}}
		l.by[kind] = t
	}
	t.count++
	t.days.add(d.FailedAt)
	if !d.FailedAt.Before(t.newest) {
		t.newest, t.err = d.FailedAt.UTC(), shortened(d.Detail)
	}
}

// shortened cuts a text that others wrote, and makes it UTF-8.
func shortened(s string) string {
	if len(s) > longestText {
		s = s[:longestText] + "..."
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
