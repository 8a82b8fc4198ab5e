package kafka

import (
	"context"
	"errors"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"tenantflow/events"
	"tenantflow/internal/fetch"
)

// A lookout looks into the logs of partitions whose reader can't say how old the oldest record is: because it has not begun, waits
// for memory, or has ended. It reads one record of a partition, with a connection of its own.
type lookout struct {
	group   *Group
	readers map[place]*watched
}

type watched struct {
	*fetch.Reader
	used time.Time
}

// How often the lookout sees whether there is something to do, how long a look may take, how many there are at once, and after
// which time without one a connection is closed.
const (
	lookEvery   = 100 * time.Millisecond
	lookTimeout = 2 * time.Second
	looksAtOnce = 8
	lookRest    = 10 * time.Second
)

// A sight is what a look at a log found: the first record from some offset on, if it has one, and its end.
type sight struct {
	found  bool
	offset int64
	at     time.Time
	end    int64
}

// run looks where it is needed until ctx is done.
func (l *lookout) run(ctx context.Context) {
	defer l.close(func(*watched) bool { return true })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		var looks errgroup.Group
		looks.SetLimit(looksAtOnce)
		for _, u := range l.group.state.unsure(now) {
			w := l.readers[u.place]
			if w == nil {
				w = &watched{Reader: fetch.New(l.group.client, u.topic, u.id)}
				l.readers[u.place] = w
			}
			w.used = now
			looks.Go(func() error {
				l.look(ctx, w.Reader, u)
				return nil
			})
		}
		_ = looks.Wait() // never an error
		l.close(func(w *watched) bool { return now.Sub(w.used) > lookRest })
	}
}

func (l *lookout) close(which func(*watched) bool) {
	for p, w := range l.readers {
		if which(w) {
			w.Close()
			delete(l.readers, p)
		}
	}
}

// look looks at one partition. When that fails, nothing is known: readiness says why, because the reader fails as well.
func (l *lookout) look(ctx context.Context, r *fetch.Reader, u doubtful) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	seen, err := firstRecord(ctx, r, u.done)
	if errors.Is(err, kafkago.OffsetOutOfRange) {
		// The oldest one there is, as the log does not hold the one that was to be next.
		var log Range
		if log, err = Bounds(ctx, l.group.client, u.topic, u.id); err == nil {
			seen, err = firstRecord(ctx, r, log.From)
		}
	}
	if err != nil {
		l.group.log.DebugContext(ctx, "looking for the oldest record failed; trying again",
			slog.String("topic", u.topic), slog.Int("partition", u.id), slog.Any("error", err))
		return
	}
	l.group.state.found(u, seen)
}

// firstRecord looks for the first record from an offset on. Records of aborted transactions are none; the one that an open
// transaction begins with is, because it holds back what follows.
func firstRecord(ctx context.Context, r *fetch.Reader, from int64) (sight, error) {
	var seen sight
	take := func(rec *events.Record) error {
		seen.found, seen.offset, seen.at = true, rec.Offset, rec.Time
		return ErrEnough
	}
	r.MaxBytes, r.Uncommitted = 1, false // one record batch
	for {
		r.Expect(Mark{})
		got, err := r.Fetch(ctx, from, 0, take)
		seen.end = got.HighWatermark
		switch {
		case errors.Is(err, ErrEnough):
			return seen, nil
		case err != nil:
			return sight{}, err
		case got.Next >= got.HighWatermark:
			return seen, nil
		case got.Next == from && (r.Uncommitted || from < got.LastStable):
			return sight{}, errors.New("the broker sent nothing, and its log goes on")
		case got.Next >= got.LastStable:
			r.Uncommitted = true
		}
		from = got.Next
	}
}
