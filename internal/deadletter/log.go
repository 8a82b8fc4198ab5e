package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
)

// A Reader reads the dead letters of some input topics.
type Reader struct {
	Client *kafkago.Client
	Topics []string // input topics, with prefix
}

// A Stretch is a range of offsets of a partition of a dead letter topic: [From, To).
type Stretch struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
}

// Bounds returns what the dead letter topics hold, in the order of topics and partitions. A dead letter topic that does not exist holds
// nothing.
func (r *Reader) Bounds(ctx context.Context) ([]Stretch, error) {
	var all []Stretch
	for _, topic := range r.Topics {
		letters := events.DeadLetterTopic(topic)
		ends, err := kafka.Ends(ctx, r.Client, letters)
		if errors.Is(err, kafkago.UnknownTopicOrPartition) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for id, log := range ends {
			all = append(all, Stretch{letters, id, log.From, log.To})
		}
	}
	slices.SortFunc(all, func(a, b Stretch) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all, nil
}

// records calls each for the records of a stretch, in order. They are valid during the call only.
func (r *Reader) records(ctx context.Context, s Stretch, each func(*events.Record) error) error {
	if s.From >= s.To {
		return nil
	}
	err := kafka.ReadLog(ctx, r.Client, s.Topic, s.Partition, kafka.Range{From: s.From, To: s.To}, each)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// Each calls each for the letters in the stretches that a filter takes, in the order of their places. A letter that was written twice comes
// twice. A letter and its bytes are valid during the call only. Records that are no dead letters are passed over.
func (r *Reader) Each(ctx context.Context, stretches []Stretch, f *Filter, each func(*Letter) error) error {
	m := f.matcher()
	for _, s := range stretches {
		err := r.records(ctx, s, func(rec *events.Record) error {
			l, err := parse(rec)
			if err != nil || !m.takes(l) {
				return nil //nolint:nilerr // it is no dead letter
			}
			return each(l)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// All is Each with every letter once. It remembers the origins, some 100 bytes each.
func (r *Reader) All(ctx context.Context, stretches []Stretch, f *Filter, each func(*Letter) error) error {
	seen := map[events.Origin]struct{}{}
	return r.Each(ctx, stretches, f, func(l *Letter) error {
		if _, again := seen[l.Origin]; again {
			return nil
		}
		seen[l.Origin] = struct{}{}
		return each(l)
	})
}

// At reads the letters at the given places and calls each for those that are there, in the order of their places. A letter and its bytes
// are valid during the call only.
func (r *Reader) At(ctx context.Context, places []Place, each func(*Letter) error) error {
	const near = 500 // records between two places that are read as well, rather than asked for apart
	places = slices.Clone(places)
	slices.SortFunc(places, comparePlaces)
	for len(places) > 0 {
		n := 1
		for n < len(places) && places[n].Topic == places[0].Topic && places[n].Partition == places[0].Partition &&
			places[n].Offset-places[n-1].Offset <= near {
			n++
		}
		run := places[:n]
		err := r.records(ctx, Stretch{run[0].Topic, run[0].Partition, run[0].Offset, run[n-1].Offset + 1}, func(rec *events.Record) error {
			if _, wanted := slices.BinarySearchFunc(run, Place{rec.Topic, rec.Partition, rec.Offset}, comparePlaces); !wanted {
				return nil
			}
			l, err := parse(rec)
			if err != nil {
				return nil //nolint:nilerr // it is no dead letter
			}
			l.read()
			return each(l)
		})
		if err != nil {
			return err
		}
		places = places[n:]
	}
	return nil
}

func comparePlaces(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}
