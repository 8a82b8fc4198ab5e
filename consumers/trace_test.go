package consumers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/trace"
	"tenantflow/internal/trace/tracetest"
)

// with adds a header.
func (m tenantMessage) with(name, value string) tenantMessage {
	m.Head = append(m.Head, events.Header{Key: name, Value: []byte(value)})
	return m
}

// One trace leads from the publisher's span through what the event does in Postgres to the record of its result, also where another process
// publishes that later.
func TestTrace_AnEventsResultsContinueItsTrace(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver(t)
	producer, tracer := receiver.NewProducer(t), receiver.Tracer(t, nil)
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	company, now := unique(), time.Now().Add(-time.Hour)
	inHeader, traceOfHeader, publisher := producer.Publish(t)
	inEvent, traceOfEvent, _ := producer.Publish(t)
	f.start(t, tenantService{tracer: tracer})
	f.send(t, registration(company, now).with("traceparent", inHeader))
	f.awaitConsumed(t) // alone: an event that waits in vain for its company's lock is applied by the sweeper, apart from its trace
	f.send(t,
		tenantEvent(company+"-up", events.TypeUpgradeRequested, company, `"new_tier":"pro"`, now.Add(time.Minute)).with("ce_traceparent", inEvent),
		tenantEvent(company+"-u2", events.TypeUserAdded, company, fmt.Sprintf(`"user_id":"%s-u2","email":"u2@x"`, company), now.Add(2*time.Minute)).with("traceparent", "00-broken-01"))
	f.awaitConsumed(t)
	f.awaitPublished(t)
	if letters := f.log(events.TopicCompany).Letters(t); len(letters) != 0 {
		t.Errorf("dead letters: %v", letters)
	}
	f.exec(t, "UPDATE inbox SET published_at = NULL") // as after a kill before it was noted
	created := f.prefix + events.TopicCompanyResults
	flushed := func() []tracetest.Span {
		if err := tracer.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return receiver.Spans(func(s tracetest.Span) bool { return s.Trace == traceOfHeader })
	}
	enginetest.Await(t, "the sweeper to publish again", func() bool { return len(records(t, f, created, company+"-registered")) >= 2 })

	results := records(t, f, created, company+"-registered")
	var spans []tracetest.Span
	publishedBy := func(r events.Record) int {
		return slices.IndexFunc(spans, func(s tracetest.Span) bool {
			return s.GetName() == "publish "+created && strings.Contains(headerOf(r, "traceparent"), s.Trace+"-"+s.ID)
		})
	}
	enginetest.Await(t, "the spans that published the results to be sent, which end after their records are there", func() bool {
		spans = flushed()
		return !slices.ContainsFunc(results, func(r events.Record) bool { return publishedBy(r) < 0 })
	})
	var applied *tracetest.Span
	for i, s := range spans {
		if s.GetName() == "apply "+events.TypeCompanyRegistered {
			applied = &spans[i]
		}
	}
	if applied == nil || applied.Parent != publisher {
		t.Fatalf("the event was not applied in the publisher's trace: %v", spans)
	}
	if !slices.ContainsFunc(spans, func(s tracetest.Span) bool { return s.Parent == applied.ID && s.Says["db.system.name"] == "postgresql" }) {
		t.Errorf("no statement is in the trace: %v", spans)
	}
	batches := receiver.Named("process " + f.prefix + events.TopicCompany)
	if !slices.ContainsFunc(batches, func(s tracetest.Span) bool {
		return s.Linked(traceOfHeader, publisher) && applied.Linked(s.Trace, s.ID)
	}) {
		t.Errorf("the batch is not linked to the publisher, or the event not to the batch: %v", batches)
	}
	for i, r := range results {
		if at := publishedBy(r); i == 0 && spans[at].Parent != applied.ID {
			t.Errorf("the result was published by %s", spans[at].Parent)
		}
		if extension := headerOf(r, "ce_traceparent"); extension != inHeader {
			t.Errorf("record %d: the extension is %q, want the publisher's", i, extension)
		}
	}
	for _, r := range records(t, f, f.prefix+events.TopicSubscriptionResults, company+"-up") {
		if !strings.Contains(headerOf(r, "traceparent"), traceOfEvent) || headerOf(r, "ce_traceparent") != inEvent {
			t.Errorf("the result of an event with the extension has %v", r.Headers)
		}
	}
	for _, s := range receiver.Spans(func(tracetest.Span) bool { return true }) {
		if text := fmt.Sprint(s.GetName(), s.Says); strings.Contains(text, company) {
			t.Errorf("a span names the company: %s", text)
		}
	}
}

// Without tracing, results have the trace of their cause all the same, as an extension that is a function of the log, and no place of our own. A
// resend in another trace is the same event.
func TestTrace_OffResultsNameTheTraceOfTheirCause(t *testing.T) {
	t.Parallel()
	producer := tracetest.NewReceiver(t).NewProducer(t)
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	company, now := unique(), time.Now().Add(-time.Hour)
	first, _, _ := producer.Publish(t)
	again, _, _ := producer.Publish(t)
	f.start(t, tenantService{})
	f.send(t, registration(company, now).with("traceparent", first), registration(company, now).with("traceparent", again))
	f.awaitConsumed(t)
	f.awaitPublished(t)
	if letters := f.log(events.TopicCompany).Letters(t); len(letters) != 0 {
		t.Errorf("dead letters: %v", letters)
	}
	all := records(t, f, f.prefix+events.TopicCompanyResults, company+"-registered")
	if len(all) == 0 {
		t.Fatal("no result")
	}
	for _, r := range all {
		if headerOf(r, "ce_traceparent") != first || headerOf(r, "traceparent") != "" {
			t.Errorf("the result of %s has %v", first, r.Headers)
		}
	}
}

// records are the records of a topic that one event has caused.
func records(t *testing.T, f *tenantFixture, topic, cause string) []events.Record {
	t.Helper()
	var all []events.Record
	f.log(events.TopicCompany).ReadAll(t, topic, func(r *events.Record) {
		if headerOf(*r, "ce_causationid") == cause {
			all = append(all, kafka.CopyRecord(r))
		}
	})
	return all
}

func headerOf(r events.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// tracedUsage is a usage event, binary.
func tracedUsage(id, user, data string, headers ...kafkago.Header) kafkago.Message {
	at := time.Now().UTC().Format(time.RFC3339Nano)
	if data == "" {
		data = fmt.Sprintf(`{"company_id":"acme","user_id":%q,"subscription_tier":"free","service_name":"s","api_endpoint":"/e","data_points_consumed":1,"processing_time_ms":1}`, user)
	}
	m := kafkago.Message{Key: []byte(user), Value: []byte(data), Headers: headers}
	for name, value := range map[string]string{"specversion": "1.0", "id": id, "source": "/test", "type": events.TypeUsageRecorded, "time": at} {
		m.Headers = append(m.Headers, kafkago.Header{Key: "ce_" + name, Value: []byte(value)})
	}
	return m
}

func (f *fixture) publishRaw(t *testing.T, messages ...kafkago.Message) {
	t.Helper()
	w := enginetest.Writer(f.Client)
	w.Topic, w.BatchTimeout = f.Topic, 5*time.Millisecond
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
}

func traceparent(value string) kafkago.Header {
	return kafkago.Header{Key: "traceparent", Value: []byte(value)}
}

// A batch of usage is linked to its producers, its insert is a part of it, and its dead letters keep their own place.
func TestTrace_ABatchIsLinkedToItsProducers(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver(t)
	producer, tracer := receiver.NewProducer(t), receiver.Tracer(t, nil)
	f := newFixture(t, fixtureOptions{partitions: 1})
	const producers = 200
	var messages []kafkago.Message
	places := map[string]string{}
	for i := range producers {
		header, trace, span := producer.Publish(t)
		places[trace] = span
		messages = append(messages, tracedUsage(fmt.Sprintf("u-%d", i), "bob", "", traceparent(header)))
	}
	messages = append(messages, tracedUsage("odd", "bob", "", traceparent("00-broken-01"), kafkago.Header{Key: "tracestate", Value: []byte("=,=")}, kafkago.Header{Key: "baggage", Value: []byte{0xff}}))
	refused, traceOfRefused, spanOfRefused := producer.Publish(t)
	messages = append(messages, tracedUsage("refused", "bob", `{"company_id":7}`, traceparent(refused)))
	f.publishRaw(t, messages...)
	var said kafkatest.Transcript
	// In one go: neither the partition nor the insert begins again because a busy machine took long.
	f.start(t, consumer{tracer: tracer, log: said.Logger(), session: undisturbed, insertTimeout: time.Minute})
	f.AwaitConsumed(t)
	if err := tracer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if letters := f.Letters(t); letters[events.InvalidData] != 1 || len(letters) != 1 {
		t.Errorf("dead letters: %v", letters)
	}
	batches := receiver.Named("process " + f.Topic)
	if len(batches) != 1 {
		t.Fatalf("%d batches", len(batches))
	}
	batch := batches[0]
	linked := 0
	for trace, span := range places {
		if batch.Linked(trace, span) {
			linked++
		}
	}
	if linked != trace.MaxLinks || len(batch.GetLinks()) != trace.MaxLinks || batch.Numbers["tenantflow.links_left_out"] != producers+1-trace.MaxLinks {
		t.Errorf("%d links, %d to the producers, %d left out", len(batch.GetLinks()), linked, batch.Numbers["tenantflow.links_left_out"])
	}
	inserts := receiver.Named("INSERT usage_tracking")
	if len(inserts) != 1 || inserts[0].Parent != batch.ID || inserts[0].Numbers["tenantflow.rows"] != producers+1 {
		t.Errorf("inserts: %v", inserts)
	}
	letters := receiver.Named("publish " + events.DeadLetterTopic(f.Topic))
	if len(letters) != 1 || letters[0].Parent != batch.ID || !letters[0].Linked(traceOfRefused, spanOfRefused) {
		t.Errorf("spans of dead letters: %v", letters)
	}
	f.ReadAll(t, events.DeadLetterTopic(f.Topic), func(r *events.Record) {
		if got := headerOf(*r, "traceparent"); got != refused {
			t.Errorf("the dead letter has %q, and its event %q", got, refused)
		}
	})
	if !said.Has("event_id=refused trace_id=" + traceOfRefused) {
		t.Error(said.String())
	}
}

// What reaches a threshold is published in the trace of the usage that did, and the commands of counting are parts of the batch.
func TestTrace_AThresholdContinuesTheTraceOfItsUsage(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver(t)
	producer, tracer := receiver.NewProducer(t), receiver.Tracer(t, nil)
	f := newQuotaFixture(t, fixtureOptions{partitions: 1})
	f.members = members{Company: map[string]string{"bob": "acme"}, Limit: 3}
	var last, traceOfLast string
	for i := range 3 {
		last, traceOfLast, _ = producer.Publish(t)
		f.publishRaw(t, tracedUsage(fmt.Sprintf("u-%d", i), "bob", "", traceparent(last)))
	}
	f.count(t, quotaConsumer{tracer: tracer})
	f.AwaitConsumed(t)
	if err := tracer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	exceeded := 0
	f.ReadAll(t, f.quotas, func(r *events.Record) {
		if headerOf(*r, "ce_type") != events.TypeQuotaExceeded {
			return
		}
		exceeded++
		if !strings.Contains(headerOf(*r, "traceparent"), traceOfLast) || headerOf(*r, "ce_traceparent") != last {
			t.Errorf("the event names %v, its usage %s", r.Headers, last)
		}
	})
	if exceeded != 1 {
		t.Errorf("%d events", exceeded)
	}
	batches, counts := receiver.Named("process "+f.Topic), receiver.Named("count quota")
	if len(batches) == 0 || len(counts) == 0 || counts[0].Parent != batches[0].ID || counts[0].Numbers["tenantflow.calls"] != 1 {
		t.Fatalf("batches %v, counts %v", batches, counts)
	}
	commands := receiver.Spans(func(s tracetest.Span) bool { return s.Says["db.system"] == "redis" })
	if !slices.ContainsFunc(commands, func(s tracetest.Span) bool { return s.Parent == counts[0].ID }) {
		t.Errorf("no command is a part of the count: %v", commands)
	}
	for _, s := range commands {
		if text := fmt.Sprint(s.GetName(), s.Says); strings.Contains(text, "bob") || s.Parent == "" {
			t.Errorf("a command names its user, or is a trace of its own: %s", text)
		}
	}
}
