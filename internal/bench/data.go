package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/model"
	"tenantflow/internal/topic"
)

// A dataset is the events of one topic.
type dataset struct {
	prefix     string // of the topic
	partitions int
	events     int // records in the topic
	rows       int // how many rows they make in the table
	bytes      int // of data in an event, on average

	counters map[string]int64 // events by the Redis key of their user and day
	members  members
}

func (d dataset) topic() string { return d.prefix + events.TopicUsage }

// The datasets, by the prefix of their topics.
const (
	dataBinary     = "binary."
	dataRows       = "rows." // the events of dataBinary as JSONEachRow
	dataStructured = "structured."
	data1K         = "data1k."
	data10K        = "data10k."
	dataDuplicates = "duplicates."
	dataMany       = "many."
	dataEach       = "each."     // one event of each of eachUsers in turn
	dataTakeover   = "takeover." // likewise of takeoverUsers
)

// dataset publishes a dataset, the first time it is asked for.
func (w *world) dataset(ctx context.Context, prefix string) (dataset, error) {
	if d, ok := w.published[prefix]; ok {
		return d, nil
	}
	d := dataset{prefix: prefix, partitions: w.Partitions, events: w.Events}
	c := model.Config{Seed: 4}
	shape := func(m *model.Message) error { return nil }
	switch prefix {
	case dataRows:
		shape = asRow()
	case dataStructured:
		c.Structured = 1
		d.events /= 2
	case data1K:
		d.events /= 4
		shape = padded(1000)
	case data10K:
		d.events /= 20
		shape = padded(10_000)
	case dataDuplicates:
		// What an unlucky producer sends: resends, and events that come up to a day late.
		c.Resends, c.Late, c.LateSpan = 0.01, 0.05, 24*time.Hour
	case dataMany:
		d.partitions = 64
	case dataEach:
		d.events /= 8
	case dataTakeover:
		d.partitions = max(1, min(w.Partitions, w.Events/takeoverRecords))
		d.events = d.partitions * takeoverRecords * 102 / 100 // their users are not spread quite evenly
	}
	// All lie in the past, the last one a minute ago: the future is refused. No month ends among them, if possible,
	// because every month is an insert of its own.
	const step = time.Millisecond
	c.Count, c.Step = d.events, step
	c.Start = time.Now().Add(-time.Minute - time.Duration(d.events)*step).Truncate(time.Second)
	began := time.Now()
	publish := func() error { return w.publish(ctx, &d, c, shape) }
	if users := map[string]int{dataEach: eachUsers, dataTakeover: takeoverUsers}[prefix]; users > 0 {
		publish = func() error { return w.publishEach(ctx, &d, users, c.Start) }
	}
	if err := publish(); err != nil {
		return d, fmt.Errorf("publish %s: %w", d.topic(), err)
	}
	w.say("%d events with %d bytes of data published to %s in %s", d.events, d.bytes, d.topic(), time.Since(began).Round(100*time.Millisecond))
	w.published[prefix] = d
	return d, nil
}

func (w *world) publish(ctx context.Context, d *dataset, c model.Config, shape func(*model.Message) error) error {
	g, err := model.New(c)
	if err != nil {
		return err
	}
	size := 0
	var m model.Message
	err = w.publishAll(ctx, d, func() (kafka.Message, bool, error) {
		if !g.Next(&m) {
			return kafka.Message{}, false, nil
		}
		err := shape(&m)
		size += len(m.Value)
		return message(&m), true, err
	})
	if err != nil {
		return err
	}
	d.bytes = size / d.events
	want := g.Expected()
	d.rows = int(want.Messages - want.Duplicates)
	d.counters, d.members, err = counters(&want)
	return err
}

// publishAll makes the topics of a dataset and publishes all that next gives.
func (w *world) publishAll(ctx context.Context, d *dataset, next func() (m kafka.Message, more bool, err error)) (err error) {
	if err := w.topics(ctx, d.prefix, d.partitions); err != nil {
		return err
	}
	publisher, err := topic.NewPublisher(ctx, w.client, d.topic(), 50)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	const portion = 2000
	for more := true; more; {
		messages := make([]kafka.Message, 0, portion)
		for len(messages) < portion {
			var m kafka.Message
			if m, more, err = next(); err != nil {
				return err
			}
			if !more {
				break
			}
			messages = append(messages, m)
		}
		if err := publisher.Publish(ctx, messages...); err != nil {
			return err
		}
	}
	return nil
}

func message(m *model.Message) kafka.Message {
	out := kafka.Message{Key: m.Key, Value: m.Value, Headers: make([]kafka.Header, len(m.Headers))}
	for i, h := range m.Headers {
		out.Headers[i] = kafka.Header{Key: h.Key, Value: h.Value}
	}
	return out
}

// padded lengthens data to a size, by members that the schema does not know: values of many kinds, nested ones too.
func padded(size int) func(*model.Message) error {
	var b []byte
	return func(m *model.Message) error {
		b = append(b[:0], bytes.TrimSuffix(m.Value, []byte{'}'})...)
		for i := 0; len(b) < size-1; i++ {
			b = append(b, `,"detail_`...)
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, `":{"venue":"xlon","levels":[101.25,101.5,99],"final":true,"note":"order book depth"}`...)
		}
		m.Value = append(bytes.Clone(b), '}')
		return nil
	}
}

// asRow turns an event into what ClickHouse's Kafka engine can read: it sees the value of a record only, so the identity
// moves into it, and whatever an event may leave out is written down. The times have the form ClickHouse reads fastest.
// There are no headers: the record is shorter than the event's, which is in favour of the engine.
func asRow() func(*model.Message) error {
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	var u events.Usage
	return func(m *model.Message) error {
		now := time.Now()
		if err := decoder.Decode(&events.Record{Key: m.Key, Headers: m.Headers, Value: m.Value}, now, &u); err != nil {
			return err
		}
		b := make([]byte, 0, 512)
		b = fmt.Appendf(b, `{"event_id":%q,"event_source":%q,"company_id":%q,"user_id":%q,"subscription_tier":%q,"service_name":%q,"api_endpoint":%q,`,
			u.ID, u.Source, u.CompanyID, u.UserID, u.Tier, u.Service, u.Endpoint)
		b = fmt.Appendf(b, `"data_points_consumed":%d,"processing_time_ms":%d.%03d,"timestamp":"%s","billing_period":%q,"revenue_attributed":"%d.%06d"}`,
			u.DataPoints, u.ProcessingTime/1000, u.ProcessingTime%1000,
			time.UnixMilli(u.Timestamp).UTC().Format("2006-01-02 15:04:05.000"), u.BillingPeriod, u.Revenue/1_000_000, u.Revenue%1_000_000)
		m.Value, m.Headers = b, nil
		return nil
	}
}
