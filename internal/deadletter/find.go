package deadletter

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"

	"tenantflow/events"
)

// ErrNoLetter says that no dead letter of an origin was found.
var ErrNoLetter = errors.New("there is no dead letter of this origin")

var errFound = errors.New("found")

// Find looks for the letter of an origin, in the topics from the end backwards, and returns it with its bytes. The error is ErrNoLetter if
// none is there.
func (r *Reader) Find(ctx context.Context, o events.Origin) (*Letter, []Looked, error) {
	only := &Reader{Client: r.Client, Topics: []string{o.Topic}}
	bounds, err := only.Bounds(ctx)
	if err != nil {
		return nil, nil, err
	}
	offset := []byte(strconv.FormatInt(o.Offset, 10))
	looked := make([]Looked, len(bounds))
	for i, b := range bounds {
		looked[i] = Looked{b.Topic, b.Partition, b.To, b.To, b.From, b.To}
	}
	for size := int64(largestRead); ; {
		more := false
		for i := range looked {
			l := &looked[i]
			if l.From <= l.LogFrom {
				continue
			}
			more = true
			piece := Stretch{l.Topic, l.Partition, max(l.LogFrom, l.From-size), l.From}
			found, err := only.findIn(ctx, piece, o, offset)
			if err != nil || found != nil {
				return found, looked, err
			}
			l.From = piece.From
		}
		if !more {
			return nil, looked, ErrNoLetter
		}
	}
}

func (r *Reader) findIn(ctx context.Context, s Stretch, o events.Origin, offset []byte) (found *Letter, err error) {
	err = r.records(ctx, s, func(rec *events.Record) error {
		// Most letters are of other offsets, which one header tells.
		i := slices.IndexFunc(rec.Headers, func(h events.Header) bool {
			return h.Key == events.HeaderOffset && bytes.Equal(h.Value, offset)
		})
		if i < 0 {
			return nil
		}
		l, err := parse(rec)
		if err != nil || l.Origin != o {
			return nil //nolint:nilerr // it is no dead letter
		}
		found = l.Clone()
		found.read()
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}
