package operations

import (
	"context"
	"errors"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// A tail reads what comes to some topics, beginning with their newest records. It is for one goroutine.
type tail struct {
	client *kafkago.Client // nil: this process has no brokers
	topics []string        // one that does not exist is empty
	depth  int64           // records of each partition to begin with

	at map[place]*kafka.Cursor
}

type place struct {
	topic     string
	partition int
}

// errPause ends a look in the midst of the log.
var errPause = errors.New("the rest is for the next look")

// follow calls each for the records that have come since the last call, until patience is over, and reports whether it came to the end.
func (t *tail) follow(ctx context.Context, patience time.Duration, each func(*events.Record)) (complete bool, err error) {
	if t.client == nil {
		return false, UnsetError("Kafka")
	}
	began := time.Now()
	if t.at == nil {
		t.at = map[place]*kafka.Cursor{}
	}
	for _, topic := range t.topics {
		ends, err := kafka.Ends(ctx, t.client, topic)
		if errors.Is(err, kafkago.UnknownTopicOrPartition) {
			continue
		}
		if err != nil {
			return false, err
		}
		for id, log := range ends {
			here := place{topic, id}
			at := t.at[here]
			if at == nil || at.Next > log.To { // or it was created again
				at = &kafka.Cursor{Next: log.To - t.depth}
				t.at[here] = at
			}
			at.Next = max(at.Next, log.From)
			at.Mark = kafka.Mark{} // it is a count for people: that the log is another one shows by its end
			err := kafka.ReadLogFrom(ctx, t.client, topic, id, at, log.To, func(rec *events.Record) error {
				if time.Since(began) > patience {
					return errPause
				}
				each(rec)
				return nil
			})
			switch {
			case errors.Is(err, errPause):
				return false, nil
			case errors.Is(err, kafkago.OffsetOutOfRange): // retention was faster
				at.Next = 0
			case err != nil:
				return false, err
			}
		}
	}
	return true, nil
}

// A days counts by the hour, and forgets what is older than a day.
type days map[int64]int64

// add counts one. A time is what a producer says: one that is still to come counts as now.
func (d days) add(at time.Time) {
	if now := time.Now(); at.After(now) {
		at = now
	}
	d[at.Unix()/3600]++
}

// since counts what came in the last 24 hours, to the hour.
func (d days) since(now time.Time) (n int64) {
	oldest := now.Add(-24*time.Hour).Unix() / 3600
	for hour, count := range d {
		if hour < oldest {
			delete(d, hour)
			continue
		}
		n += count
	}
	return n
}
