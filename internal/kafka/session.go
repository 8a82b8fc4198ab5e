package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/internal/logs"
	"tenantflow/internal/retry"
	"tenantflow/internal/trace"
)

const partitionFailed = "partition failed; starting it again from its committed offset"

// line logs what every partition may have to say at once.
func (g *Group) line(ctx context.Context, level slog.Level, at place, message string, attrs ...slog.Attr) {
	g.lines.Log(ctx, level, message, append([]slog.Attr{slog.String("topic", at.topic), slog.Int("partition", at.id)}, attrs...)...)
}

// runPartition runs one partition until soft is done, whatever happens to it: what is transient is tried again from the
// committed position, what stops a partition leaves the others alone.
func (g *Group) runPartition(soft, hard context.Context, committer *committer, at place) {
	log := g.log.With(slog.String("topic", at.topic), slog.Int("partition", at.id))
	defer g.troubles.Forget(at.String())
	delays := retry.New()
	for soft.Err() == nil {
		began := time.Now()
		err := g.runSession(soft, hard, committer, at, log)
		var moved *MovedError
		if errors.As(err, &moved) {
			continue
		}
		var stop *StopError
		var failure *FatalError
		switch {
		case err == nil || soft.Err() != nil:
			if err != nil {
				g.line(hard, slog.LevelInfo, at, "partition given up before its batch was finished; its next owner goes on from there", slog.Any("reason", err))
			}
		case errors.Is(err, ErrLost):
			g.line(hard, slog.LevelInfo, at, "partition lost", slog.Any("reason", err))
			<-soft.Done() // the heartbeat will notice as well, and a member without an answer leaves
		case errors.As(err, &stop):
			g.line(hard, slog.LevelError, at, "partition stopped", slog.String("kind", stop.Kind), slog.Any("error", err))
			g.state.stopped(at.topic, at.id, stop)
			<-soft.Done()
		case errors.As(err, &failure):
			g.line(hard, slog.LevelError, at, "consumer stopped", slog.Any("error", err))
			g.state.waiting(at.topic, at.id, writing, err)
			g.stop(failure)
			<-soft.Done()
		default:
			g.state.waiting(at.topic, at.id, writing, err)
			g.troubles.Say(hard, logs.Trouble{Level: slog.LevelWarn, Message: partitionFailed, Of: at.String(), Err: err,
				Attrs: []slog.Attr{slog.String("topic", at.topic), slog.Int("partition", at.id)}})
			if time.Since(began) > time.Minute {
				delays.Reset()
			}
			_ = delays.Wait(soft) // soft is looked at above
		}
	}
}

// runSession runs one partition from its committed position. Its *MovedError: there is another position now.
func (g *Group) runSession(soft, hard context.Context, committer *committer, at place, log *slog.Logger) error {
	committed, err := g.position(soft, at)
	if err != nil {
		return err
	}
	g.state.placed(at, committed.Offset)
	defer g.state.released(at)
	bounds, err := Bounds(soft, g.client, at.topic, at.id)
	if err != nil {
		return err
	}
	p := &Partition{group: g, committer: committer, topic: at.topic, id: at.id, offset: committed.Offset, metadata: committed.Metadata, mark: committed.Mark,
		bounds: bounds, peers: g.state.count(), log: log}
	if p.mark.IsZero() {
		p.mark = g.read.of(at)
	}
	log.DebugContext(soft, "partition opened", slog.Int64("offset", committed.Offset), slog.String("metadata", committed.Metadata))
	err = p.consume(soft, hard)
	var moved *MovedError
	if !errors.As(err, &moved) {
		return err
	}
	if moved.Cut {
		p.mark = Mark{}
		g.read.set(at, p.mark)
	}
	if err := p.Commit(hard, moved.To, moved.Metadata); err != nil {
		return err
	}
	return moved
}

// position reads what is committed. Without an offset the partition begins at the start of its log.
func (g *Group) position(ctx context.Context, at place) (Position, error) {
	// The group exists, as this process is its member: a coordinator that does not know it has lost what was committed, or not loaded it
	// yet, and "nothing is committed" would let a pending intent be forgotten.
	all, err := fetchCommitted(ctx, g.client, g.cfg.Group, at.topic, []int{at.id})
	if err != nil {
		return Position{}, err
	}
	if p, named := all[at.id]; named && p.Offset >= 0 {
		return p, nil
	}
	log, err := Bounds(ctx, g.client, at.topic, at.id)
	return Position{Offset: log.From}, err
}

// session is one partition at work, from its assignment to the end of the generation.
type session struct {
	*Partition
	handler BatchPartition
	batches chan formed // from the reader to the writer; unbuffered: one is written, one is formed
	done    int64       // everything before it has had its effects (the writer's)
}

// formed is a batch on its way to the writer, with what it holds of the budget.
type formed struct {
	batch Batch
	Range
	claim int64
	mark  Mark // of its last record, or of one before that

	taken       bool         // it has a record
	first, last time.Time    // when its first and its last one were appended
	links       *trace.Links // to the producers of its records; nil: nothing is traced
}

// consume works on the partition until soft is done, and then finishes what is under way for as long as hard allows.
func (p *Partition) consume(soft, hard context.Context) error {
	opened, err := p.group.handler.Open(soft, p)
	if err != nil {
		return err
	}
	if c, ok := opened.(Closer); ok {
		defer c.Close(hard)
	}
	s := &session{Partition: p, handler: opened, batches: make(chan formed), done: p.offset}
	p.group.state.opened(p.topic, p.id, p.offset)
	p.Waiting(nil)
	if err := p.checkEnd(soft); err != nil {
		return err
	}
	if !p.bounds.holds(p.offset) {
		return s.outOfRange(soft, p.offset, p.bounds)
	}
	p.group.troubles.Over(hard, partitionFailed, place{p.topic, p.id}.String())

	// The reader ends first, because soft is done or because the writer failed; the writer then finishes.
	readerCtx, stopReader := context.WithCancelCause(soft)
	defer stopReader(nil)
	wrote := make(chan error, 1)
	go func() {
		err := s.write(hard)
		stopReader(errors.New("the writer has ended"))
		wrote <- err
	}()
	readErr := s.read(readerCtx)
	close(s.batches)
	writeErr := <-wrote
	if writeErr != nil {
		return writeErr
	}
	if readErr != nil && soft.Err() == nil {
		return readErr
	}
	return nil
}

// holds reports whether reading may go on at an offset: it is in the log, or the next to come.
func (r Range) holds(offset int64) bool { return offset >= r.From && offset <= r.To }

// outOfRange is where the log no longer holds what was not read yet, or holds less than was read. Going on would skip
// events, or read those of another log, so it takes the operator's word. The error ends the session and says what to do.
func (s *session) outOfRange(ctx context.Context, next int64, log Range) error {
	s.group.metrics.outOfRange.WithLabelValues(s.topic).Inc()
	what := fmt.Sprintf("offset %d of %s/%d is not in the log, which holds %s", next, s.topic, s.id, log)
	switch s.group.cfg.OutOfRange {
	case OutOfRangeEarliest:
		s.Line(ctx, slog.LevelError, "going on at the earliest offset, as configured", slog.String("reason", what), slog.Int64("skipped", max(0, log.From-next)))
		return &MovedError{To: log.From, Cut: true}
	case OutOfRangeLatest:
		s.Line(ctx, slog.LevelError, "going on at the latest offset, as configured", slog.String("reason", what), slog.Int64("skipped", max(0, log.To-next)))
		return &MovedError{To: log.To, Cut: true}
	case OutOfRangeStop:
	}
	return &StopError{Kind: "offset_out_of_range", Err: fmt.Errorf("%s: it was truncated or recreated, and events may be lost. "+
		"The partition is stopped. Restore the events by replay, then set TENANTFLOW_OFFSET_OUT_OF_RANGE=earliest (or latest) "+
		"for one start, or set the group's offset with Kafka's own tool while the service is down", what)}
}

// write takes batches until there are no more, and commits what is done when it is idle.
func (s *session) write(hard context.Context) error {
	committed := s.offset
	idle := time.NewTimer(s.group.cfg.CommitIdle) // for what an earlier owner left pending and Open has settled
	defer idle.Stop()
	annotator, _ := s.handler.(Annotator)
	commit := func() error {
		note := ""
		if annotator != nil {
			note = annotator.Annotation()
		}
		if s.done == committed && s.metadata == note {
			return nil
		}
		if err := s.Commit(hard, s.done, note); err != nil {
			return err
		}
		committed, s.metadata = s.done, note
		return nil
	}
	watch, watched := time.NewTicker(idleWatch), time.Now()
	defer watch.Stop()
	idler, _ := s.handler.(Idler)
	for {
		select {
		case b, more := <-s.batches:
			if !more {
				return commit()
			}
			if err := s.writeOne(hard, b); err != nil {
				return err
			}
			idle.Reset(s.group.cfg.CommitIdle)
			watched = time.Now()
			if s.committed.IsZero() {
				s.committed = watched
			}
			if watched.Sub(s.committed) >= commitLatest {
				if err := commit(); err != nil {
					return err
				}
			}
		case <-idle.C:
			// In steady state "done" rides with the next intent. Nothing came, so it goes alone.
			if err := commit(); err != nil {
				return err
			}
		case <-watch.C:
			if idler == nil || time.Since(watched) < idleWatch/2 {
				continue
			}
			if err := idler.Idle(hard); err != nil {
				return err
			}
		}
	}
}

// How often an idle partition's handler is asked to look after itself, and after how long what is done is committed
// where neither the handler nor a pause has done so.
const (
	idleWatch    = time.Second
	commitLatest = time.Second
)

func (s *session) writeOne(hard context.Context, b formed) error {
	defer s.group.budget.release(b.claim)
	defer b.batch.Release()
	if b.From < s.done {
		return fmt.Errorf("write %s/%d %s: the batch begins before %d, which is done", s.topic, s.id, b.Range, s.done)
	}
	began := time.Now()
	s.writing = b
	ctx, span := s.group.cfg.Tracer.Batch(hard, trace.Batch{Topic: s.topic, Group: s.group.cfg.Group, Partition: s.id, From: b.From, To: b.To, Events: b.batch.Rows()}, b.links)
	err := b.batch.Write(ctx, b.Range)
	span.End(err)
	if err != nil {
		return err
	}
	s.done = b.To
	if !b.mark.IsZero() {
		s.mark = b.mark
	}
	s.writing = formed{}
	s.group.state.advance(s.topic, s.id, s.done, b.last)
	s.Waiting(nil)
	s.group.state.progress()
	s.group.metrics.batch(s.topic, &b, time.Since(began))
	return nil
}
