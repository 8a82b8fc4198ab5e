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

var (
	//go:embed count.lua
	countSource string
	//go:embed clear.lua
	clearSource string
	//go:embed note.lua
	noteSource string
	//go:embed begin.lua
	beginSource string
	//go:embed resum.lua
	resumSource string
	//go:embed doubt.lua
	doubtSource string
)

// scripts are what sessions and repairs run.
type scripts struct {
	count, clear, note, begin, resum, doubt, reserve, release, guard *redis.Script
}

func newScripts() scripts {
	return scripts{redis.NewScript(countSource), redis.NewScript(clearSource), redis.NewScript(noteSource), redis.NewScript(beginSource),
		redis.NewScript(resumSource), redis.NewScript(doubtSource), redis.NewScript(reserveSource), redis.NewScript(releaseSource), redis.NewScript(guardSource)}
}

// ErrMoved says that the store is not in the state that the session thinks: it was emptied, has gone back to an older
// state, is another server, or another process has begun an epoch. Look again before anything is counted.
var ErrMoved = errors.New("the counter store has changed")

// A LaterEpochError says that a counter belongs to a later epoch than the one it was to be counted in. It is an ErrMoved.
type LaterEpochError struct {
	Epoch int64
	user  string
}

func (e *LaterEpochError) Error() string {
	return fmt.Sprintf("the counter of user %s belongs to the later epoch %d: %v", e.user, e.Epoch, ErrMoved)
}

func (e *LaterEpochError) Unwrap() error { return ErrMoved }

// A Session counts the events of one partition. All its commands go over one connection and none is sent twice: a retry
// may land on a server that has gone back in time, and then a watermark would be written over a gap. Look comes before
// everything else. After any error the session is of no use any more, except one of Count that is an ErrMoved: close it,
// and begin another one. It is for one goroutine.
type Session struct {
	store     *Store
	conn      *redis.Conn
	topic     string
	partition int
	server    *server // that answers; nil before the first look
	looked    Epoch   // that the last look has shown
	guarded   int64   // the epoch for which it is noted since when holds are kept

	// What Count uses again and again.
	limits map[limited]limitWords
	day    time.Time // of expiry
	expiry any       // nil: none yet
	text   []byte    // a list of thresholds with offsets
	again  []Call    // those that are sent a second time
	places []int     // of them
}

// Session begins a session. It connects with its first command.
func (s *Store) Session(topic string, partition int) *Session {
	return &Session{store: s, conn: s.counter.Conn(), topic: topic, partition: partition}
}

// Close gives the connection up.
func (s *Session) Close() { _ = s.conn.Close() } // what is open on it is void anyway

// Lateness is how long after its UTC day a counter is kept.
func (s *Session) Lateness() time.Duration { return s.store.cfg.Lateness }

// A Mode says what to do where a user has no share of the epoch yet.
type Mode string

// The modes.
const (
	Clear Mode = "clear" // a share of an earlier epoch is given up; the epoch's own days
	Keep  Mode = "keep"  // it is kept, and one is created where there is none
	Adopt Mode = "adopt" // it is kept, and none is created: days before the epoch's
)

// A Batch is what the calls of one batch have in common.
type Batch struct {
	Epoch       int64
	Incarnation int64
	From, To    int64 // the range of offsets; a Call may begin later
}

// A Call is the events of one user and one UTC day in a batch. One batch has one call for a user and day. One without events reaches
// no threshold: it moves the watermark of a share, gives up one of an earlier epoch as its mode says, and answers what is due. It is Left where there is
// no share.
type Call struct {
	User   string
	Day    time.Time // midnight
	Mode   Mode
	From   int64 // the watermark that an earlier call has answered; 0: the batch's own beginning
	Events int
	Points uint64 // data points of all events
	Limit  int64  // of calls a day; -1: there is none
	// Thresholds of the limit; nil: no threshold events are wanted. Those that an earlier call has made due are answered all the same.
	Thresholds *Thresholds
	// Offsets are those of the events, in order; DayOver for one that was recorded after its day was over, which makes no
	// threshold event, and OfVoid for a void. They are needed where there are a limit and thresholds.
	Offsets []int64
	// Holds are the reservations that the events name, each once. They end in the step that counts the events, or right behind it where there
	// are thousands.
	Holds []string
	// Voids take usage back that was counted in the same partition. They are not among Events. One that was taken off before, however long
	// ago, is known and changes nothing. Marks of thresholds stay.
	Voids []Void
}

// What stands in the place of an offset.
const (
	DayOver int64 = -1
	OfVoid  int64 = -2
)

// A Void takes the usage of one event back.
type Void struct {
	ID     uint64 // of its own identity
	Points uint32 // data points of the usage
}

// Due is a threshold event to publish.
type Due struct {
	User    string
	Day     time.Time
	Percent int
	Limit   int64
	Calls   int64 // as of the event that reached the threshold
	Offset  int64 // of that event

	entry string
}

// An Outcome says what a Call has done.
type Outcome int

// The outcomes of a Call.
const (
	Added  Outcome = iota // its events are counted
	Known                 // they were counted before
	Behind                // those before Watermark were counted before; call again with the others
	Left                  // they are not counted: the day is before the epoch's, and the user has no counter

	reaches // they may reach a threshold, so their offsets are needed; Count sends these again itself
)

// Counted is the outcome of a Call.
type Counted struct {
	Outcome   Outcome
	Watermark int64 // with Behind
	Calls     int64 // of the day; 0 with Behind
	Points    int64 // data points of the day; 0 with Behind
	Due       []Due // threshold events that this partition still has to publish
}

// maxCounting is how many sessions count at the same time: while the server works on the calls of one, those of another are
// on their way.
const maxCounting = 2

// Count counts the calls, in one round trip, and in a second one those that may reach a threshold. ErrMoved: one of the counters
// belongs to a later epoch; the others may be counted. After any error it is not known which calls were counted; to make them
// again, on a session that has looked and found the store as it was, is right in every case.
//
// The server runs one script after the other, and every read of a counter waits for all that is queued. So only
// maxCounting sessions of a process count at a time, and callers keep the number of calls small.
func (s *Session) Count(ctx context.Context, b Batch, calls []Call, into []Counted) ([]Counted, error) {
	doing := func(err error) error {
		return fmt.Errorf("count %d users of %s/%d: %w", len(calls), s.topic, s.partition, err)
	}
	if s.server == nil {
		return into, doing(errors.New("nothing was looked at on this connection"))
	}
	if err := s.store.fit(ctx); err != nil {
		return into, doing(err)
	}
	select {
	case s.store.counting <- struct{}{}:
		defer func() { <-s.store.counting }()
	case <-ctx.Done():
		return into, doing(context.Cause(ctx))
	}
	counted, err := s.count(ctx, b, calls, false, into)
	if err != nil {
		return into, doing(err)
	}
	answers := counted[len(into):]
	s.again, s.places = s.again[:0], s.places[:0]
	for i := range answers {
		if answers[i].Outcome == reaches {
			s.again, s.places = append(s.again, calls[i]), append(s.places, i)
		}
	}
	if len(s.again) > 0 {
		second, err := s.count(ctx, b, s.again, true, nil)
		if err != nil {
			return into, doing(err)
		}
		for i, c := range second {
			if c.Outcome == reaches {
				return into, doing(fmt.Errorf("the offsets of the events of user %s are asked for twice", s.again[i].User))
			}
			answers[s.places[i]] = c
		}
	}
	for i := range answers {
		if err := s.endMore(ctx, &calls[i], answers[i].Outcome); err != nil {
			return into, doing(err)
		}
	}
	return counted, nil
}

// holdsAtOnce is how many holds one command ends: Dragonfly takes 2^16 words of a command, and every script holds all others up.
const holdsAtOnce = 1000

// endMore ends the holds that had no room in the call. They are only held too long where this fails: the call made again finds its events known.
func (s *Session) endMore(ctx context.Context, c *Call, outcome Outcome) error {
	if outcome != Added {
		return nil
	}
	for begin := holdsAtOnce; begin < len(c.Holds); begin += holdsAtOnce {
		var ids []any
		for _, id := range c.Holds[begin:min(len(c.Holds), begin+holdsAtOnce)] {
			ids = append(ids, id)
		}
		if err := s.store.scripts.release.Run(ctx, s.conn, []string{HoldsKey(c.User, c.Day)}, ids...).Err(); err != nil {
			return fmt.Errorf("end holds of user %s: %w", c.User, err)
		}
	}
	return nil
}

// count sends the calls and reads the answers.
func (s *Session) count(ctx context.Context, b Batch, calls []Call, offsets bool, into []Counted) ([]Counted, error) {
	for attempt := 0; ; attempt++ {
		counted := into
		cmds, err := s.send(ctx, b, calls, offsets)
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
		case noScript(err) && attempt == 0: // none of them has run
			if err = s.conn.ScriptLoad(ctx, countSource).Err(); err == nil {
				continue
			}
		}
		return into, err
	}
}

// countArgs is how many words a call of count.lua has, the command's own included.
const countArgs = 4 + 12

// send pipelines the calls. The error is the first one of any of them. Where a call has more than a few events, or more than a few thresholds,
// its offsets and the list are left out unless they are asked for: they are many bytes, and few calls reach a threshold.
func (s *Session) send(ctx context.Context, b Batch, calls []Call, offsets bool) ([]*redis.Cmd, error) {
	const few, short = 4, 64 // events; bytes of a list
	pipe := s.conn.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	words := make([]any, 0, countArgs*len(calls))
	var evalsha, sha, one, none any = "evalsha", s.store.scripts.count.Hash(), 1, ""
	var field, epoch, from, to any = shareField(s.topic, s.partition, b.Incarnation), b.Epoch, b.From, b.To
	for i := range calls {
		c := &calls[i]
		begin := from
		if c.From > b.From {
			begin = c.From
		}
		args := append(words[len(words):], evalsha, sha, one, QuotaKey(c.User, c.Day), field, epoch, string(c.Mode), begin, to,
			c.Events, c.Points, s.expires(c.Day), none, none, none, none)
		words = words[:len(words)+countArgs]
		if c.Events > 0 && c.Limit >= 0 && c.Thresholds != nil {
			if l := s.words(limited{c.Limit, c.Thresholds}); l.list != "" {
				args[12], args[13], args[14] = l.limit, l.least, l.note
				if offsets || len(c.Offsets) <= few && len(l.list) <= short {
					s.text = appendOffsets(append(s.text[:0], l.list...), c.Offsets, max(b.From, c.From))
					args[15] = string(s.text)
				}
			}
		}
		if len(c.Voids) > 0 {
			args[10] = pointsAndVoids(c)
		}
		if len(c.Holds) > 0 {
			args = withHolds(args, c)
		}
		cmds[i] = redis.NewCmd(ctx, args...)
		_ = pipe.Process(ctx, cmds[i]) // a pipeline takes every command
	}
	_, err := pipe.Exec(ctx)
	return cmds, err
}

// withHolds gives a call the key with the user's holds and the first of the reservations that its events name.
func withHolds(args []any, c *Call) []any {
	const keys = 2 // where their number stands
	all := make([]any, 0, len(args)+1+min(len(c.Holds), holdsAtOnce))
	all = append(append(all, args[:keys+2]...), HoldsKey(c.User, c.Day))
	all[keys] = 2
	all = append(all, args[keys+2:]...)
	for _, id := range c.Holds[:min(len(c.Holds), holdsAtOnce)] {
		all = append(all, id)
	}
	return all
}

// appendOffsets writes the offsets behind a list of thresholds, less from.
func appendOffsets(text []byte, offsets []int64, from int64) []byte {
	text = append(text, ';')
	for _, offset := range offsets {
		switch {
		case offset == OfVoid:
			text = append(text, 'v')
		case offset >= 0:
			text = strconv.AppendInt(text, offset-from, 10)
		}
		text = append(text, ',')
	}
	return text
}

// pointsAndVoids writes the data points of a call's events and, behind them, its voids.
func pointsAndVoids(c *Call) string {
	text := append(strconv.AppendUint(nil, c.Points, 10), ' ')
	for _, v := range c.Voids {
		text = append(strconv.AppendUint(text, v.ID, 36), ':')
		text = append(strconv.AppendUint(text, uint64(v.Points), 10), ',')
	}
	return string(text)
}

// expires is when the counters of a day expire, as a word of a command. Most calls are for the same day.
func (s *Session) expires(day time.Time) any {
	if s.expiry == nil || !day.Equal(s.day) {
		s.day, s.expiry = day, day.AddDate(0, 0, 1).Add(s.store.cfg.Lateness).Unix()
	}
	return s.expiry
}

// parseCounted reads an answer of count.lua.
func parseCounted(cmd *redis.Cmd, call *Call) (Counted, error) {
	text, err := cmd.Text()
	if err != nil {
		return Counted{}, err
	}
	word, rest, _ := strings.Cut(text, " ")
	number, rest, _ := strings.Cut(rest, " ")
	points, due, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	used, notUsed := strconv.ParseInt(points, 10, 64)
	err = errors.Join(err, notUsed)
	c := Counted{Calls: n, Points: used}
	switch word {
	case "counted":
	case "known":
		c.Outcome = Known
	case "left":
		c.Outcome = Left
	case "offsets":
		c.Outcome = reaches
	case "behind":
		c = Counted{Outcome: Behind, Watermark: n}
	case "later":
		if err == nil {
			return Counted{}, &LaterEpochError{n, call.User}
		}
	default:
		err = errors.Join(err, errors.New("the word is not known"))
	}
	for entry := range strings.FieldsSeq(due) {
		d := Due{User: call.User, Day: call.Day, entry: entry}
		part := strings.Split(entry, ":")
		if len(part) != 5 {
			err = errors.Join(err, fmt.Errorf("%q has no five parts", entry))
			continue
		}
		var errs [4]error
		d.Percent, errs[0] = strconv.Atoi(part[0])
		d.Limit, errs[1] = strconv.ParseInt(part[1], 10, 64)
		d.Calls, errs[2] = strconv.ParseInt(part[2], 10, 64)
		d.Offset, errs[3] = strconv.ParseInt(part[4], 10, 64)
		err = errors.Join(err, errors.Join(errs[:]...))
		c.Due = append(c.Due, d)
	}
	if err != nil {
		return Counted{}, fmt.Errorf("count user %s: read the answer %q: %w", call.User, text, err)
	}
	return c, nil
}

// Clear notes that threshold events are published.
func (s *Session) Clear(ctx context.Context, due []Due) error {
	for _, d := range due {
		if err := s.store.scripts.clear.Run(ctx, s.conn, []string{QuotaKey(d.User, d.Day)}, d.entry).Err(); err != nil {
			return fmt.Errorf("clear a threshold event of user %s: %w", d.User, err)
		}
	}
	return nil
}
