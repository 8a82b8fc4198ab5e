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

	"tenantflow/internal/tier"
)

var (
	//go:embed count.lua
	countSource string
	//go:embed clear.lua
	clearSource string
	//go:embed move.lua
	moveSource string
	//go:embed begin.lua
	beginSource string
)

// progressTTL is how long progress outlives the last sign of life of who counts. It is longer than a service is down.
const progressTTL = 30 * 24 * time.Hour

// ErrMoved says that the progress of a partition, or the epoch, is not what the session thinks: the store was cleared or
// has gone back to an older state, or another member counts.
var ErrMoved = errors.New("the progress kept in the counter store has changed")

// A LaterEpochError says that a counter belongs to a later epoch than the one it was to be counted in. It is an ErrMoved.
type LaterEpochError struct {
	Epoch int64
	user  string
}

func (e *LaterEpochError) Error() string {
	return fmt.Sprintf("the counter of user %s belongs to the later epoch %d: %v", e.user, e.Epoch, ErrMoved)
}

func (e *LaterEpochError) Unwrap() error { return ErrMoved }

// ErrHalfApplied says that the server ran out of memory in the middle of a script. Redis refuses such a script as a whole;
// Dragonfly may have applied a part of it, so the counters of the day can't be trusted.
var ErrHalfApplied = errors.New("the counter store was out of memory, and a script may be half applied")

// A Session counts the events of one partition. All its commands go over one connection and none is sent twice, so
// between two answers the server has not been restarted from an older state. After any other error than those of this
// package the session is of no use any more: close it, and begin with another one at Load. It is for one goroutine.
type Session struct {
	store     *Store
	conn      *redis.Conn
	topic     string
	partition int
}

// Session begins a session. It connects with its first command.
func (s *Store) Session(topic string, partition int) *Session {
	return &Session{store: s, conn: s.counter.Conn(), topic: topic, partition: partition}
}

// Close gives the connection up.
func (s *Session) Close() { _ = s.conn.Close() } // what is open on it is void anyway

// Window is how long the identities of a counted event are kept at least.
func (s *Session) Window() time.Duration { return 2 * s.store.cfg.Bucket }

// Lateness is how long after its UTC day a counter is kept.
func (s *Session) Lateness() time.Duration { return s.store.cfg.Lateness }

// Bucket is the span of the records' times that share a set of identities.
func (s *Session) Bucket() time.Duration { return s.store.cfg.Bucket }

// Load reads the partition's progress.
func (s *Session) Load(ctx context.Context) (Progress, error) {
	values, err := s.conn.HMGet(ctx, progressKey(s.topic), epochField, partitionField(s.partition)).Result()
	if err != nil {
		return Progress{}, fmt.Errorf("read the progress of %s/%d: %w", s.topic, s.partition, err)
	}
	epoch, _ := values[0].(string)
	text, _ := values[1].(string)
	p, err := parseProgress(text)
	if err != nil {
		// Not ours, or damaged: to be counted anew, which needs to know what to replace.
		p = Progress{New: true, text: text}
	}
	if epoch != "" {
		if p.Epoch, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			return Progress{}, &ConfigError{fmt.Sprintf("the epoch %q in %s is no number: delete the key", epoch, progressKey(s.topic))}
		}
	}
	return p, nil
}

// Begin begins an epoch for all partitions of the topic, unless another member has done so since p was loaded.
func (s *Session) Begin(ctx context.Context, p Progress, partitions int, now time.Time) error {
	given := ""
	if p.Epoch != 0 {
		given = strconv.FormatInt(p.Epoch, 10)
	}
	next := max(p.Epoch+1, now.UnixMilli())
	err := s.store.scripts.begin.Run(ctx, s.conn, []string{progressKey(s.topic)}, given, next, int(progressTTL/time.Second), partitions).Err()
	if err != nil {
		return fmt.Errorf("begin epoch %d of %s: %w", next, s.topic, err)
	}
	return nil
}

// Move makes to the partition's progress and returns it as it stands there. ErrMoved: from is not what stands there.
func (s *Session) Move(ctx context.Context, from, to Progress) (Progress, error) {
	to.Epoch, to.text = from.Epoch, to.String()
	said, err := s.store.scripts.move.Run(ctx, s.conn, []string{progressKey(s.topic)},
		from.Epoch, partitionField(s.partition), from.text, to.text, int(progressTTL/time.Second)).Text()
	if err != nil {
		return from, fmt.Errorf("move the progress of %s/%d: %w", s.topic, s.partition, err)
	}
	if said != "ok" {
		return from, fmt.Errorf("move the progress of %s/%d from %d %q to %q: %w: it is %q", s.topic, s.partition, from.Epoch, from.text, to.text, ErrMoved, said)
	}
	return to, nil
}

// Same tells whether two loaded progresses are the same.
func (p Progress) Same(o Progress) bool { return p.Epoch == o.Epoch && p.text == o.text }

// scripts are what sessions run.
type scripts struct{ count, clear, move, begin *redis.Script }

func newScripts() scripts {
	return scripts{redis.NewScript(countSource), redis.NewScript(clearSource), redis.NewScript(moveSource), redis.NewScript(beginSource)}
}

// A Call is the events of one user, one UTC day and one bucket, at most MaxEvents, no two with the same identity.
type Call struct {
	User       string
	Day        time.Time // midnight
	Bucket     int64     // the number of the records' bucket since the epoch
	Limit      int64     // of calls a day; -1: there is none, or no threshold events are wanted
	Identities []uint64
	Points     []uint32
	Offsets    []int64
}

// maxCounting is how many sessions count at the same time: while the server works on the calls of one, those of another are
// on their way.
const maxCounting = 2

// MaxEvents bounds the events of one call: scripts hold the server up, and Lua's stack has an end.
const MaxEvents = 500

// Due is a threshold event to publish.
type Due struct {
	User      string
	Day       time.Time
	Percent   int
	Limit     int64
	Calls     int64 // as of the event that reached the threshold
	Partition int   // of that event
	Offset    int64

	entry string
}

// Counted is the outcome of a Call.
type Counted struct {
	New   int   // events that were not counted before
	Calls int64 // of the day
	Due   []Due // whatever made them so
}

// Count counts the calls, in one round trip, in an epoch. ErrMoved: a later epoch has begun. ErrHalfApplied: see there.
//
// The server runs one script after the other, and whoever reads a counter meanwhile waits for all that is queued. So only
// maxCounting sessions of a process count at a time, and callers keep the number of calls small.
func (s *Session) Count(ctx context.Context, epoch int64, calls []Call) ([]Counted, error) {
	select {
	case s.store.counting <- struct{}{}:
		defer func() { <-s.store.counting }()
	case <-ctx.Done():
		return nil, fmt.Errorf("count %d users of %s/%d: %w", len(calls), s.topic, s.partition, context.Cause(ctx))
	}
	for attempt := 0; ; attempt++ {
		counted := make([]Counted, 0, len(calls))
		cmds, err := s.send(ctx, epoch, calls)
		for i, cmd := range cmds {
			if err != nil {
				break
			}
			var c Counted
			if c, err = parseCounted(cmd, &calls[i]); err == nil {
				counted = append(counted, c)
			}
		}
		switch {
		case err == nil:
			return counted, nil
		case noScript(err) && attempt == 0:
			if err = s.conn.ScriptLoad(ctx, countSource).Err(); err == nil {
				continue
			}
		case outOfMemory(err):
			err = errors.Join(ErrHalfApplied, err)
		}
		return nil, fmt.Errorf("count %d users of %s/%d: %w", len(calls), s.topic, s.partition, err)
	}
}

// send pipelines the calls. The error is the first one of any of them.
func (s *Session) send(ctx context.Context, epoch int64, calls []Call) ([]*redis.Cmd, error) {
	sha := s.store.scripts.count.Hash()
	pipe := s.conn.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	var identities []byte
	var list []byte
	join := func(n int, at func(int) int64) string {
		list = list[:0]
		for i := range n {
			if i > 0 {
				list = append(list, ',')
			}
			list = strconv.AppendInt(list, at(i), 10)
		}
		return string(list)
	}
	for i := range calls {
		c := &calls[i]
		if len(c.Identities) == 0 || len(c.Identities) > MaxEvents {
			return nil, fmt.Errorf("a call with %d events", len(c.Identities))
		}
		limit, most, full := "", int64(0), int64(0)
		if c.Limit >= 0 {
			limit = strconv.FormatInt(c.Limit, 10)
			most, full = max(1, tier.Limit(c.Limit).Reached(80)), max(1, c.Limit)
		}
		var sum uint64
		for _, p := range c.Points {
			sum += uint64(p)
		}
		args := make([]any, 10, 10+len(c.Identities))
		args[0], args[1], args[2] = epoch, c.Day.AddDate(0, 0, 1).Add(s.store.cfg.Lateness).Unix(), int64((s.Window()+slack)/time.Second)
		args[3], args[4], args[5], args[6], args[7] = limit, most, full, s.partition, sum
		args[8] = join(len(c.Points), func(i int) int64 { return int64(c.Points[i]) })
		args[9] = ""
		if c.Limit >= 0 {
			args[9] = join(len(c.Offsets), func(i int) int64 { return c.Offsets[i] })
		}
		for _, id := range c.Identities {
			at := len(identities)
			identities = appendIdentity(identities, id)
			args = append(args, identities[at:len(identities):len(identities)])
		}
		keys := []string{QuotaKey(c.User, c.Day), identitiesKey(c.User, epoch, c.Bucket), identitiesKey(c.User, epoch, c.Bucket-1)}
		cmds[i] = pipe.EvalSha(ctx, sha, keys, args...)
	}
	_, err := pipe.Exec(ctx)
	return cmds, err
}

// slack is how much longer than the window identities live: a call takes its time.
const slack = 10 * time.Minute

// appendIdentity writes the 8 bytes of a member. One that consists of digits alone could be stored as a number, which
// costs less but is counted wrongly by Dragonfly's SADD; the answer of SADD is not used, so it does not matter.
func appendIdentity(b []byte, id uint64) []byte {
	return append(b, byte(id), byte(id>>8), byte(id>>16), byte(id>>24), byte(id>>32), byte(id>>40), byte(id>>48), byte(id>>56))
}

// parseCounted reads an answer of count.lua.
func parseCounted(cmd *redis.Cmd, call *Call) (Counted, error) {
	text, err := cmd.Text()
	if err != nil {
		return Counted{}, err
	}
	newly, rest, _ := strings.Cut(text, " ")
	if newly == "stale" {
		later, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			return Counted{}, fmt.Errorf("count user %s: read the answer %q: %w", call.User, text, err)
		}
		return Counted{}, &LaterEpochError{later, call.User}
	}
	var c Counted
	calls, due, _ := strings.Cut(rest, " ")
	if c.New, err = strconv.Atoi(newly); err == nil {
		c.Calls, err = strconv.ParseInt(calls, 10, 64)
	}
	for entry := range strings.FieldsSeq(due) {
		d := Due{User: call.User, Day: call.Day, entry: entry}
		if _, e := fmt.Sscanf(entry, "%d:%d:%d:%d:%d", &d.Percent, &d.Limit, &d.Calls, &d.Partition, &d.Offset); e != nil {
			err = errors.Join(err, e)
		}
		c.Due = append(c.Due, d)
	}
	if err != nil {
		return Counted{}, fmt.Errorf("count user %s: read the answer %q: %w", call.User, text, err)
	}
	return c, nil
}

// Clear takes threshold events off the lists of what is due. They must be published.
func (s *Session) Clear(ctx context.Context, due []Due) error {
	for _, d := range due {
		if err := s.store.scripts.clear.Run(ctx, s.conn, []string{QuotaKey(d.User, d.Day)}, d.entry).Err(); err != nil {
			return fmt.Errorf("clear a threshold event of user %s: %w", d.User, err)
		}
	}
	return nil
}
