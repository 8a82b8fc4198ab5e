package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
	"tenantflow/sinks/postgres"
)

// Results is what was compared of the results of company and subscription events: what the inbox says of them, with the records of their
// topics.
type Results struct {
	Events  int64 `json:"events"`  // of the inbox, whose results were published before the run
	Looked  int64 `json:"looked"`  // results of these that were looked for
	Records int64 `json:"records"` // of the topics
	Others  int64 `json:"others"`  // records of these that are of other sources, or no events
	TooOld  int64 `json:"too_old"` // results that the log of their topic need not hold any more: not judged

	Voids      int64 `json:"voids"`       // events that take usage back, whose rows were looked for
	YoungVoids int64 `json:"young_voids"` // those that the service may not have stored yet: not judged
}

// resultTopics are the topics that results of company and subscription events are published to. Of a compacted topic the last record of
// each key stays.
func resultTopics() []resultTopic {
	return []resultTopic{{name: events.TopicCompanyResults}, {name: events.TopicSubscriptionResults}, {name: events.TopicNotifications},
		{name: events.TopicCompanyConfig, compacted: true}}
}

// A resultTopic is a topic of results as it is read.
type resultTopic struct {
	name      string // without prefix
	compacted bool
	ids       []int               // its partitions; none: there is no such topic
	logs      map[int]kafka.Range // what their logs held when the run began
	from      map[int]int64       // where reading begins
	held      time.Time           // what was published since is in the log; zero: everything is
	emptied   map[int]bool        // partitions whose log holds nothing any more
}

// A seen is an event that was read from a topic of results.
type seen struct {
	topic, partition int
	offset           int64 // of the last record
	first, last      uint64
	mixed            bool // there are records of this id that differ
}

// A resultCheck is the comparison of the inbox with the topics of results under way.
type resultCheck struct {
	v      *Verifier
	report *Report
	begun  time.Time // by Postgres' clock, before anything was read
	topics []resultTopic
	found  map[uuid.UUID]*seen // of this pass
	named  map[uuid.UUID]bool  // of this pass: something is wrong with them
	pass   int
	passes int

	counted  Results
	findings Findings
	missing  []postgres.Result
	derived  derivation
	voids    missingVoids
}

// checkResults compares what the inbox says was published with the records of the topics. It returns the results that are to be published
// again. Memory is bounded: where there are many, they are compared in passes, each over a part of the ids.
//
// The order matters while the service runs. Postgres' clock is read first: what was noted as published before is in the logs whose ends
// are read next, and the inbox, which is read last, has the row of every record.
func (v *Verifier) checkResults(ctx context.Context, at *positions, report *Report) ([]postgres.Result, error) {
	v.cfg.Progress(Progress{Stage: "results", Differences: report.Differences()})
	begun, err := v.cfg.Tenants.Now(ctx)
	if err != nil {
		return nil, err
	}
	c := &resultCheck{v: v, report: report, begun: begun, topics: resultTopics(), passes: 1,
		voids: missingVoids{v: v, at: at, consumed: map[int]time.Time{}}}
	var records int64
	for i := range c.topics {
		n, err := c.open(ctx, &c.topics[i])
		if err != nil {
			return nil, err
		}
		records += n
	}
	c.passes += int(records / int64(v.cfg.Results))
	for ; c.pass < c.passes; c.pass++ {
		if err := c.compare(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.voids.look(ctx); err != nil {
		return nil, err
	}
	c.counted.Voids, c.counted.YoungVoids = c.voids.looked, c.voids.young
	report.Results = c.counted
	report.Findings.merge(c.findings)
	report.Findings.merge(c.voids.findings)
	return append(c.missing, c.voids.missing...), nil
}

// open reads the bounds of a topic, and since when it holds everything.
func (c *resultCheck) open(ctx context.Context, t *resultTopic) (records int64, err error) {
	full := c.v.cfg.TopicPrefix + t.name
	t.ids, err = totals.PartitionsOf(ctx, c.v.cfg.Client, full)
	if errors.Is(err, ErrNotThere) {
		c.report.note("there is no topic %s, so the results that were published to it are not compared", full)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t.logs, t.from, t.emptied = map[int]kafka.Range{}, map[int]int64{}, map[int]bool{}
	for _, id := range t.ids {
		log, err := kafka.Bounds(ctx, c.v.cfg.Client, full, id)
		if err != nil {
			return 0, err
		}
		from, err := c.v.begins(ctx, full, id, log, clockSlack)
		if err != nil {
			return 0, err
		}
		t.logs[id], t.from[id] = log, from
		records += log.To - from
		if log.From == 0 {
			continue
		}
		first, err := c.v.firstOf(ctx, full, id, log)
		if err != nil {
			return 0, err
		}
		if t.emptied[id] = first.IsZero(); first.After(t.held) {
			t.held = first
		}
	}
	return records, nil
}

// inPass reports whether an id belongs to the pass at hand.
func (c *resultCheck) inPass(id uuid.UUID) bool { return int(id[0])%c.passes == c.pass }

// compare makes one pass.
func (c *resultCheck) compare(ctx context.Context) error {
	c.found, c.named = map[uuid.UUID]*seen{}, map[uuid.UUID]bool{}
	if err := c.read(ctx, func(topic int, r *events.Record, e *events.Envelope, id uuid.UUID) error {
		c.counted.Records++
		print := printOf(string(r.Key), e)
		s := c.found[id]
		if s == nil {
			s = &seen{first: print}
			c.found[id] = s
		}
		s.mixed = s.mixed || s.first != print
		s.topic, s.partition, s.offset, s.last = topic, r.Partition, r.Offset, print
		return nil
	}); err != nil {
		return err
	}
	var absent []absentResult
	if err := c.v.cfg.Tenants.Recorded(ctx, c.v.cfg.Since, func(r *postgres.Recorded) error {
		absent = append(absent, c.recorded(r)...)
		if c.pass > 0 {
			return nil
		}
		return c.voids.recorded(ctx, r)
	}); err != nil {
		return err
	}
	if err := c.lookAgain(ctx, absent); err != nil {
		return err
	}
	return c.explain(ctx)
}

// read calls each for the events of the service's own consumers of the pass at hand.
func (c *resultCheck) read(ctx context.Context, each func(topic int, r *events.Record, e *events.Envelope, id uuid.UUID) error) error {
	for i := range c.topics {
		t := &c.topics[i]
		for _, partition := range t.ids {
			r := kafka.Range{From: t.from[partition], To: t.logs[partition].To}
			err := kafka.ReadLog(ctx, c.v.cfg.Client, c.v.cfg.TopicPrefix+t.name, partition, r, func(r *events.Record) error {
				e, id, ours := ownResult(r)
				switch {
				case !ours && c.pass == 0:
					c.counted.Others++
				case ours && c.inPass(id):
					return each(i, r, e, id)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("read the results: %w", err)
			}
		}
	}
	return nil
}

// ownResult reads a record as a result of the consumers of companies and subscriptions.
func ownResult(r *events.Record) (*events.Envelope, uuid.UUID, bool) {
	if len(r.Value) == 0 {
		return nil, uuid.UUID{}, false // a tombstone
	}
	e, err := events.ParseEnvelope(r)
	if err != nil || e.Source != events.SourceOf("company") && e.Source != events.SourceOf("subscription") {
		return nil, uuid.UUID{}, false
	}
	id, err := uuid.Parse(e.ID)
	if err != nil {
		// No id that was ever given: it is named by what it is.
		id = uuid.NewSHA1(uuid.Nil, []byte(e.ID))
	}
	return e, id, true
}

// printOf is a hash of all that a result says.
func printOf(key string, e *events.Envelope) uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, text := range []string{key, e.Type, e.Source, e.CausationID, e.CausationSource, strconv.FormatInt(e.Time.UnixMicro(), 10)} {
		_, _ = d.WriteString(text) // never fails
		_, _ = d.Write([]byte{'\n'})
	}
	_, _ = d.Write(e.Data)
	return d.Sum64()
}

// An absentResult is a result that was not read from its topic.
type absentResult struct {
	id     uuid.UUID
	event  postgres.EventID
	result postgres.Result
	topic  int
}

// recorded looks for the results of an event of the inbox, and takes those away that are as they should be. It returns those that are
// not there.
func (c *resultCheck) recorded(r *postgres.Recorded) []absentResult {
	if r.Faulty || !r.PublishedAt.Before(c.begun) {
		return nil
	}
	first := c.pass == 0
	if first {
		c.counted.Events++
	}
	switch {
	case first && r.Unreadable != "":
		c.findings.add(Finding{Kind: AlteredResult, Where: "inbox", Event: r.Source + " " + r.ID, Detail: r.Unreadable})
	case first && r.Forgotten && !r.Purged:
		c.findings.add(Finding{Kind: AlteredResult, Where: "inbox", Event: r.Source + " " + r.ID,
			Detail: "the result of this event is gone, and company " + r.Company + " is not purged"})
	}
	var absent []absentResult
	for _, one := range r.Results {
		topic := slices.IndexFunc(c.topics, func(t resultTopic) bool { return t.name == one.Topic })
		if one.Event == nil || topic < 0 || len(c.topics[topic].ids) == 0 {
			continue
		}
		id, err := uuid.Parse(one.Event.ID)
		if err != nil || !c.inPass(id) {
			continue
		}
		t, s := &c.topics[topic], c.found[id]
		if s != nil {
			c.counted.Looked++
			if s.topic == topic && s.last == printOf(one.Key, one.Event) && (!s.mixed || r.Repeats()) {
				delete(c.found, id) // what is left is to be explained
			}
			continue
		}
		switch {
		case t.compacted: // which configuration is the last is looked at elsewhere
		case !t.held.IsZero() && r.PublishedAt.Before(t.held.Add(clockSlack)), t.emptied[t.of(one.Key)]:
			c.counted.TooOld++
		default:
			c.counted.Looked++
			absent = append(absent, absentResult{id, r.EventID, one, topic})
		}
	}
	return absent
}

// of is the partition of a key.
func (t *resultTopic) of(key string) int {
	return kafka.Partitioner{}.Balance(kafkago.Message{Key: []byte(key)}, t.ids...)
}

// lookAgain says which results are missing. A run that begins to read late may have passed over a record that was long noted as published
// late, so their topics are read from the beginning.
func (c *resultCheck) lookAgain(ctx context.Context, absent []absentResult) error {
	if len(absent) == 0 {
		return nil
	}
	there := map[uuid.UUID]bool{}
	if !c.v.cfg.Since.IsZero() {
		for _, a := range absent {
			there[a.id] = false
		}
		for i := range c.topics {
			t := &c.topics[i]
			for _, partition := range t.ids {
				err := kafka.ReadLog(ctx, c.v.cfg.Client, c.v.cfg.TopicPrefix+t.name, partition, kafka.Range{To: t.from[partition]}, func(r *events.Record) error {
					if _, id, ours := ownResult(r); ours {
						if _, wanted := there[id]; wanted {
							there[id] = true
						}
					}
					return nil
				})
				if err != nil {
					return fmt.Errorf("read the results: %w", err)
				}
			}
		}
	}
	for _, a := range absent {
		if there[a.id] {
			continue
		}
		c.findings.add(Finding{Kind: MissingResult, Where: c.v.cfg.TopicPrefix + c.topics[a.topic].name + " " + a.result.Event.ID, Event: a.event.Source + " " + a.event.ID,
			Detail: fmt.Sprintf("%s of company %s was published, says the inbox, and is not on its topic", a.result.Event.Type, a.result.Key)})
		if len(c.missing) < maxResults {
			c.missing = append(c.missing, a.result)
		}
	}
	return nil
}

// maxResults is how many results one round of a repair publishes again.
const maxResults = 10_000
