package dragonfly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// sentinelTTL is how long sentinels outlive the last sign of life of a process that counts. It is longer than a service is
// down.
const sentinelTTL = 30 * 24 * time.Hour

// An Epoch is a count of the day from the log. A loss that can't be healed otherwise begins another one.
type Epoch struct {
	Number int64 // higher than that of every epoch before; 0: there is none

	// Day is the first UTC day that it counts: shares of that day and later that belong to earlier epochs are cleared.
	// Counters of days before are kept and none is created. Zero: it counts every day.
	Day time.Time

	Partitions int    // of the topic, when it began
	Server     string // the process it began on
	Evicted    int64  // keys that this process had evicted by then, as it said
}

func (e Epoch) String() string {
	day := "-"
	if !e.Day.IsZero() {
		day = e.Day.UTC().Format(dayLayout)
	}
	return fmt.Sprintf("%s %d %s %d", day, e.Partitions, e.Server, e.Evicted)
}

// parseEpoch reads a number and what String wrote. What can't be read is no epoch.
func parseEpoch(text string) Epoch {
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return Epoch{}
	}
	e := Epoch{Server: fields[3]}
	var errs [4]error
	e.Number, errs[0] = strconv.ParseInt(fields[0], 10, 64)
	if fields[1] != "-" {
		e.Day, errs[1] = time.Parse(dayLayout, fields[1])
	}
	e.Partitions, errs[2] = strconv.Atoi(fields[2])
	e.Evicted, errs[3] = strconv.ParseInt(fields[4], 10, 64)
	if errors.Join(errs[:]...) != nil {
		return Epoch{}
	}
	return e
}

// Progress is how far a partition is counted, and what says that it is that partition's log.
type Progress struct {
	Epoch       int64 // the epoch it was noted in; 0: nothing was
	Incarnation int64 // of the log: how often it was found to be another one, and taken as such
	Offset      int64 // everything before it is counted, and the threshold events it made due are published

	// Until is the offset at which everything is counted again that was lost; not beyond Offset: nothing is missing.
	Until int64

	// Keep says that shares of earlier epochs are kept: the log no longer holds all that they count.
	Keep bool

	Record Record // the last one counted
	server string
}

// A Record is a place in a partition's log, and the hash of the record's content there, [events.Record.ContentHash]. It is a function
// of the log alone: not of settings, nor of what this version of the service makes of an event.
type Record struct {
	Offset int64 // -1: none
	Hash   uint64
}

// word is the offset in a sentinel: -2 for 0, -3 for 1 and so on; -1: none. Versions before wrote the offset itself, beside a hash of what
// they had decoded, which can't be compared. They take what is written now for none, and this one takes theirs for none.
func (r Record) word() int64 {
	if r.Offset < 0 {
		return -1
	}
	return -2 - r.Offset
}

// recordOf reads what word wrote.
func recordOf(word int64, hash uint64) Record {
	if word >= -1 {
		return Record{Offset: -1}
	}
	return Record{Offset: -2 - word, Hash: hash}
}

func (p Progress) rest(server string) string {
	keep := 0
	if p.Keep {
		keep = 1
	}
	return fmt.Sprintf("%d %d %s %d %s", p.Until, keep, server, p.Record.word(), strconv.FormatUint(p.Record.Hash, 36))
}

// parseProgress reads what note.lua wrote. What can't be read is no progress.
func parseProgress(text string) Progress {
	none := Progress{Record: Record{Offset: -1}}
	fields := strings.Fields(text)
	if len(fields) != 8 {
		return none
	}
	p := Progress{Keep: fields[4] == "1", server: fields[5]}
	var word int64
	var err error
	for i, to := range map[int]*int64{0: &p.Epoch, 1: &p.Incarnation, 2: &p.Offset, 3: &p.Until, 6: &word} {
		var one error
		*to, one = strconv.ParseInt(fields[i], 10, 64)
		err = errors.Join(err, one)
	}
	hash, one := strconv.ParseUint(fields[7], 36, 64)
	if errors.Join(err, one) != nil {
		return none
	}
	p.Record = recordOf(word, hash)
	return p
}

// later reports whether a progress is that of a later incarnation, or goes further in the same.
func (p Progress) later(than Progress) bool {
	return cmp.Or(cmp.Compare(p.Incarnation, than.Incarnation), cmp.Compare(p.Record.Offset, than.Record.Offset), cmp.Compare(p.Offset, than.Offset)) > 0
}

// A State is what the sentinels say of one partition, and who says so.
type State struct {
	// Doubt says why the counters can't be trusted and a new epoch has to begin: lost (a sentinel is missing, or was taken
	// away because the server may evict keys), mixed (they are in two epochs), server (another Dragonfly), evicted (keys were
	// evicted). Empty: they can.
	Doubt string

	Epoch Epoch // the highest of the sentinels; Number 0: none is there

	// Lowest is the lowest progress in this epoch. Its Epoch is 0 where a sentinel has none.
	Lowest Progress

	// Latest is the progress with the highest incarnation, record and offset, of whatever epoch.
	Latest Progress

	Restarted bool // the lowest progress was noted on another server than this one

	now      time.Time
	server   string
	evicted  int64
	progress [sentinels]int64 // by sentinel; -1: none in this epoch
}

// ServerTime is the server's clock, to the second.
func (s *State) ServerTime() time.Time { return s.now }

// Look reads the sentinels. The first look of a session finds out which server answers.
func (s *Session) Look(ctx context.Context) (*State, error) {
	now, err := identify(ctx, s.conn)
	switch {
	case err != nil:
		return nil, err
	case !now.master:
		return nil, &UnfitError{fmt.Sprintf("the counter store is a %s: it takes no writes. Counting waits until it is the master, or the address leads to that", now.role)}
	case s.server != nil && s.server.id != now.id:
		return nil, fmt.Errorf("look at the sentinels of %s: %w: another server answers", s.topic, ErrMoved)
	}
	if err := s.store.noteServer(ctx, s.conn, &now); err != nil {
		return nil, err
	}
	if err := now.fit(); err != nil {
		return nil, err
	}
	s.server = &now
	pipe := s.conn.Pipeline()
	topic, partition := topicField(s.topic), partitionField(s.topic, s.partition)
	var answers [sentinels]*redis.SliceCmd
	for k := range answers {
		answers[k] = pipe.HMGet(ctx, SentinelKey(k), topic, partition)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("look at the sentinels of %s/%d: %w", s.topic, s.partition, err)
	}
	state := &State{server: now.id, evicted: now.evicted, now: now.now, Latest: Progress{Record: Record{Offset: -1}}}
	var epochs [sentinels]Epoch
	var all [sentinels]Progress
	for k, answer := range answers {
		values := answer.Val()
		text, _ := values[0].(string)
		epochs[k] = parseEpoch(text)
		if epochs[k].Number > state.Epoch.Number {
			state.Epoch = epochs[k]
		}
		text, _ = values[1].(string)
		all[k] = parseProgress(text)
		if p := all[k]; p.later(state.Latest) {
			state.Latest = p
		}
	}
	for k, e := range epochs {
		switch {
		case e.Number == 0:
			state.Doubt = "lost"
		case e.Number != state.Epoch.Number && state.Doubt == "":
			state.Doubt = "mixed"
		}
		p := all[k]
		state.progress[k] = p.Offset
		if p.Epoch != state.Epoch.Number || p.Incarnation != state.Latest.Incarnation {
			p, state.progress[k] = Progress{Record: Record{Offset: -1}}, -1
		}
		if k == 0 || p.Epoch == 0 || state.Lowest.Epoch != 0 && p.Offset < state.Lowest.Offset {
			state.Lowest = p
		}
		state.Restarted = state.Restarted || p.Epoch != 0 && p.server != now.id
	}
	s.looked = state.Epoch
	switch {
	case state.Epoch.Number == 0: // there is nothing to doubt
	case now.lost(state.Epoch):
		state.Doubt = "evicted" // a sentinel, too, may be among the keys
	case state.Doubt == "" && state.Epoch.Server != now.id && !now.oneStream:
		state.Doubt = "server"
	}
	return state, nil
}

// Covers reports whether every sentinel still has the epoch and at least the progress that an earlier look, or a note
// made since on the same server, has shown. If not, the store has gone back.
func (s *State) Covers(epoch int64, noted int64) bool {
	if s.Doubt != "" || s.Epoch.Number != epoch {
		return false
	}
	for _, progress := range s.progress {
		if progress < noted {
			return false
		}
	}
	return true
}

// SameServer reports whether two looks were answered by the same process in the same role.
func (s *State) SameServer(o *State) bool { return s.server == o.server }

// Note notes a partition's progress in all sentinels. ErrMoved: one of them is missing, or in another epoch.
func (s *Session) Note(ctx context.Context, p Progress) error {
	if s.server == nil {
		return fmt.Errorf("note the progress of %s/%d: nothing was looked at on this connection", s.topic, s.partition)
	}
	for k := range sentinels {
		said, err := s.store.scripts.note.Run(ctx, s.conn, []string{SentinelKey(k)}, topicField(s.topic), p.Epoch, partitionField(s.topic, s.partition),
			p.Incarnation, p.Offset, p.rest(s.server.id), int(sentinelTTL/time.Second)).Text()
		if err != nil {
			return fmt.Errorf("note the progress of %s/%d: %w", s.topic, s.partition, err)
		}
		if said != "noted" {
			return fmt.Errorf("note the progress of %s/%d in epoch %d: %w: %s", s.topic, s.partition, p.Epoch, ErrMoved, said)
		}
	}
	return s.guard(ctx, p.Epoch)
}

// Begin begins the epoch after the one that is in doubt, unless another process or partition has done so since: at most
// one partition of a process does it at a time. next gives the epoch's Day and Partitions. Look again afterwards.
func (s *Session) Begin(ctx context.Context, doubted *State, above int64, next Epoch) error {
	s.store.beginning.Lock()
	defer s.store.beginning.Unlock()
	now, err := s.Look(ctx)
	if err != nil {
		return err
	}
	// Another was begun since. The doubt may have arisen while it was being written to one sentinel after the other, and its number
	// may be the highest that the caller knows, because it was committed to Kafka since.
	since := doubted.Doubt != "" || now.Epoch.Number > doubted.Epoch.Number
	if now.Doubt == "" && since && now.Epoch.Number >= above {
		return nil
	}
	highest := max(doubted.Epoch.Number, now.Epoch.Number, above)
	// The low bits are random, so that one begun after everything was forgotten has a number of its own.
	next.Number = (highest>>epochBits+1)<<epochBits | s.store.random()
	next.Server, next.Evicted = now.server, now.evicted
	for k := range sentinels {
		err := s.store.scripts.begin.Run(ctx, s.conn, []string{SentinelKey(k)}, topicField(s.topic), highest, next.Number, next.String(), int(sentinelTTL/time.Second)).Err()
		if err != nil {
			return fmt.Errorf("begin epoch %d of %s: %w", next.Number, s.topic, err)
		}
	}
	return nil
}

// epochBits is how many low bits of an epoch's number are random.
const epochBits = 12
