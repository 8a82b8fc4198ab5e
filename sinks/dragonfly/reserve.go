package dragonfly

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// LongestHold is how long a part of a user's day can be held at most. For reservations a rebuild lasts at least so long: holds from before are
// forgotten, and what they stood for may still be under way.
const LongestHold = 300 * time.Second

// MostHolds is how many holds a user and day may have.
const MostHolds = 10_000

// Reservations hold at most MostCalls and MostPoints each, so that all holds of a user stay far below 2^53.
const (
	MostCalls  = 1_000_000_000
	MostPoints = 100_000_000_000
)

var (
	//go:embed reserve.lua
	reserveSource string
	//go:embed release.lua
	releaseSource string
	//go:embed guard.lua
	guardSource string
)

// HoldsKey is the hash with what is held of a user's UTC day.
func HoldsKey(user string, day time.Time) string {
	return "quota_holds:{" + user + "}:" + day.UTC().Format(dayLayout)
}

// A Reservation asks to hold a part of a user's day.
type Reservation struct {
	User, ID    string
	Calls       int64 // 1 to MostCalls
	DataPoints  int64 // 0 to MostPoints
	TTL         time.Duration
	CallLimit   int64 // of the day; -1: none
	PointsLimit int64 // likewise
}

// A Decision says what became of a Reservation.
type Decision string

// The decisions.
const (
	Granted      Decision = "granted"
	Held         Decision = "known"    // by the same id, with the same amounts
	HeldOtherway Decision = "other"    // by the same id, with other amounts: nothing was changed
	Exceeded     Decision = "exceeded" // it would go beyond a limit
	Crowded      Decision = "crowded"  // the user has MostHolds holds
	otherDay     Decision = "day"
)

// Reserved is what became of a Reservation, and what there is of the user's day.
type Reserved struct {
	Decision Decision
	Day      time.Time // midnight; by the store's clock, like all times
	Now      time.Time
	Expires  time.Time // of the hold; zero: there is none
	Counted  Counters
	Held     Counters
	First    time.Time // when the first hold ends; zero: there is none
}

// A RebuildingError says that counters are being rebuilt, or that holds may have been forgotten, so that nothing can be decided.
type RebuildingError struct {
	// After is for how long it will last if the counters are right by then; 0: that is not known.
	After time.Duration
}

func (e *RebuildingError) Error() string {
	if e.After > 0 {
		return fmt.Sprintf("holds may have been forgotten, and end within %s", e.After)
	}
	return "the counters are being rebuilt"
}

// Reserve holds a part of a user's day, if it fits into the limits: counted, held and asked for are decided on in one step. The day is that of the
// store's clock. Making the same Reservation again is harmless.
//
// Unless anyway is set, nothing is decided while the counters are being rebuilt or holds may have been forgotten: the error is a *RebuildingError.
// With anyway it goes by what is there, and rebuilding says that this may be short.
func (s *Store) Reserve(ctx context.Context, r Reservation, anyway bool) (answer Reserved, rebuilding bool, err error) {
	doing := func(err error) error {
		return fmt.Errorf("hold %d calls of user %s: %w", r.Calls, r.User, err)
	}
	if s.doubtful.Load() && !anyway {
		// Looked at first, so that a rebuild does not leave holds of requests that were refused.
		fields, err := s.client.HGetAll(ctx, SentinelKey(0)).Result()
		if err != nil {
			return Reserved{}, false, doing(err)
		}
		if _, err := s.trusted(ctx, fields); err != nil {
			return Reserved{}, true, doing(err)
		}
	}
	day := s.now().UTC().Truncate(24 * time.Hour)
	for try := 0; ; try++ {
		before, now, after, err := s.reserve(ctx, r, day)
		if err != nil {
			return Reserved{}, false, doing(err)
		}
		if now.Decision == otherDay {
			// The process's clock is on the other side of midnight than the store's.
			if day = now.Now.UTC().Truncate(24 * time.Hour); try > 0 {
				return Reserved{}, false, doing(errors.New("the store's clock changes its day"))
			}
			continue
		}
		if err := s.judge(ctx, before, after); err != nil {
			var unsure *RebuildingError
			if !errors.As(err, &unsure) {
				return Reserved{}, false, doing(err)
			}
			if anyway {
				return now, true, nil
			}
			if now.Decision == Granted {
				_ = s.Release(ctx, r.User, r.ID) // if not, it ends by itself
			}
			return Reserved{}, true, doing(unsure)
		}
		return now, false, nil
	}
}

// reserve makes the call, between two looks at a sentinel on the same connection.
func (s *Store) reserve(ctx context.Context, r Reservation, day time.Time) (before map[string]string, now Reserved, after map[string]string, err error) {
	limit := func(n int64) any {
		if n < 0 {
			return ""
		}
		return n
	}
	for attempt := 0; ; attempt++ {
		pipe := s.client.Pipeline()
		first := pipe.HGetAll(ctx, SentinelKey(0))
		call := pipe.EvalSha(ctx, s.scripts.reserve.Hash(), []string{QuotaKey(r.User, day), HoldsKey(r.User, day)},
			r.ID, r.Calls, r.DataPoints, r.TTL.Milliseconds(), limit(r.CallLimit), limit(r.PointsLimit), day.Unix(), MostHolds, s.clock())
		last := pipe.HGetAll(ctx, SentinelKey(0))
		_, err = pipe.Exec(ctx)
		if noScript(call.Err()) && attempt == 0 {
			if err = s.client.ScriptLoad(ctx, reserveSource).Err(); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, Reserved{}, nil, err
		}
		now, err = parseReserved(call, day)
		return first.Val(), now, last.Val(), err
	}
}

// judge says whether what a call has found can be trusted, by the sentinel before and after it: both of one epoch, in which everything was counted and no
// hold forgotten. A store that was emptied before the call shows in the second look; one that was rebuilt between them in the first.
func (s *Store) judge(ctx context.Context, before, after map[string]string) error {
	one, err := s.trusted(ctx, before)
	if err != nil {
		return err
	}
	other, err := s.trusted(ctx, after)
	if err == nil && one != other {
		err = &RebuildingError{}
	}
	return err
}

// trusted returns the epoch that a sentinel shows, or a *RebuildingError.
func (s *Store) trusted(ctx context.Context, sentinel map[string]string) (epoch int64, err error) {
	busy, err := s.rebuilding(ctx, sentinel)
	if err != nil {
		return 0, err
	}
	after := time.Duration(0)
	epoch = parseEpoch(sentinel[topicField(s.cfg.Topic)]).Number
	if !busy {
		after, busy, err = s.forgotten(ctx, sentinel, epoch)
		if err != nil {
			return 0, err
		}
	}
	s.doubtful.Store(busy)
	if busy {
		return 0, &RebuildingError{After: after}
	}
	return epoch, nil
}

// forgotten reports whether holds that would not have ended yet may have been forgotten, and for how long still.
func (s *Store) forgotten(ctx context.Context, sentinel map[string]string, epoch int64) (after time.Duration, yes bool, err error) {
	now, err := s.sight(ctx)
	if err != nil {
		return 0, false, err
	}
	note := strings.Fields(sentinel[guardField(s.cfg.Topic)])
	if len(note) != 3 || note[0] != strconv.FormatInt(epoch, 10) || note[1] != now.id {
		return 0, true, nil // the process that counts writes it within a second
	}
	since, err := strconv.ParseInt(note[2], 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("read since when holds are kept: %w", err)
	}
	after = time.Unix(since, 0).Add(s.cfg.LongestHold + time.Second).Sub(now.now) // both clocks are cut off to seconds
	return after, after > 0, nil
}

// Release ends a hold of today before its time. One that is gone is as well.
func (s *Store) Release(ctx context.Context, user, id string) error {
	// A hold of a day that is over holds nothing any more, but this may be before midnight by the store's clock, or behind it.
	const clocks = 5 * time.Minute
	for i, at := range []time.Time{s.now().Add(-clocks), s.now().Add(clocks)} {
		key := HoldsKey(user, at)
		if i > 0 && key == HoldsKey(user, s.now().Add(-clocks)) {
			break
		}
		if err := s.scripts.release.Run(ctx, s.client, []string{key}, id).Err(); err != nil {
			return fmt.Errorf("end a hold of user %s: %w", user, err)
		}
	}
	return nil
}

// parseReserved reads an answer of reserve.lua.
func parseReserved(cmd *redis.Cmd, day time.Time) (Reserved, error) {
	text, err := cmd.Text()
	if err != nil {
		return Reserved{}, err
	}
	part := strings.Fields(text)
	if len(part) != 8 {
		return Reserved{}, fmt.Errorf("read the answer %q: it has no eight parts", text)
	}
	var n [7]int64
	for i := range n {
		var one error
		n[i], one = strconv.ParseInt(part[i+1], 10, 64)
		err = errors.Join(err, one)
	}
	if err != nil {
		return Reserved{}, fmt.Errorf("read the answer %q: %w", text, err)
	}
	at := func(ms int64) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms).UTC()
	}
	return Reserved{Decision: Decision(part[0]), Day: day, Now: at(n[0]), Expires: at(n[1]), Counted: Counters{n[2], n[3]}, Held: Counters{n[4], n[5]}, First: at(n[6])}, nil
}

// guardField is where the first sentinel notes since when holds are kept. Versions before neither write nor read it.
func guardField(topic string) string { return topicField(topic) + "!" }

// guard notes, once for an epoch and a server, since when holds are kept there: since the last look, which was made after what began them.
func (s *Session) guard(ctx context.Context, epoch int64) error {
	if s.guarded == epoch {
		return nil
	}
	nothing := ""
	if s.looked.Number == epoch && s.looked.Day.IsZero() {
		nothing = "0"
	}
	err := s.store.scripts.guard.Run(ctx, s.conn, []string{SentinelKey(0)}, topicField(s.topic), guardField(s.topic), epoch, s.server.id, s.server.now.Unix(), nothing).Err()
	if err != nil {
		return fmt.Errorf("note since when holds are kept: %w", err)
	}
	s.guarded = epoch
	return nil
}
