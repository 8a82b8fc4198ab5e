package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/topic"
)

// commandSource is the source of the events that the command line makes.
const commandSource = "/tenantflow/command-line"

func newUsageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Take wrong usage events back",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUsageVoidCommand(a))
	return cmd
}

// voidFlags are the flags of usage void.
type voidFlags struct {
	company, user, source, id, timestamp, reason string
	requestID                                    string
	wait                                         time.Duration
}

func newUsageVoidCommand(a *app) *cobra.Command {
	var f voidFlags
	cmd := &cobra.Command{
		Use:   "void --company C --user U --source S --id I --timestamp T --reason R",
		Short: "Ask for a usage event to be taken back",
		Long: `Void publishes a request (company.usage_void_requested.v1) to take one usage event back. The company consumer looks the
usage up in ClickHouse, by all that names it here, and answers on company.results: company.usage_voided.v1, or
company.rejected.v1 with the code unknown_usage, already_voided, void_too_late, company_closed or unknown_company. Nothing is
deleted: a second row takes the first one's amounts back from every total, and from the day's quota counter.

It returns when the request is in the log, or with --wait when the answer is there too. Where usage events are not stored
up to the request yet, the request waits for that, and only the request does. Asked twice, the second time is refused.

The reason goes to the audit log, from which nothing can be erased: name no person in it.

Exit codes: 0 published, or with --wait taken back; 1 the request is refused, not answered within the wait, or Kafka does not
answer; 2 the flags or the configuration are wrong.`,
		Example: `  tenantflow usage void --company acme --user u-1 --source /gateway/eu --id evt-1 \
    --timestamp 2026-11-22T10:00:00.123Z --reason "sent twice under two ids" --wait 30s`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, failed := a.voidUsage(cmd.Context(), f)
			if result == nil {
				return failed
			}
			return errors.Join(a.show(cmd.OutOrStdout(), result, result.table), failed)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.company, "company", "", "company of the usage")
	flags.StringVar(&f.user, "user", "", "user of the usage")
	flags.StringVar(&f.source, "source", "", "source of the usage event")
	flags.StringVar(&f.id, "id", "", "id of the usage event")
	flags.StringVar(&f.timestamp, "timestamp", "", "timestamp of the usage, or the time of its event if that has none (RFC 3339)")
	flags.StringVar(&f.reason, "reason", "", "why it is taken back")
	flags.StringVar(&f.requestID, "request-id", "", "id of the request; the same one again is the same request (default a new one)")
	flags.DurationVar(&f.wait, "wait", 0, "wait this long for the answer")
	return cmd
}

// A voidResult is what became of a request.
type voidResult struct {
	RequestID     string `json:"request_id"`
	RequestSource string `json:"request_source"`
	CompanyID     string `json:"company_id"`
	VoidID        string `json:"void_id"` // of the event that takes the usage back, if it is
	State         string `json:"state"`   // requested, voided or rejected
	Code          string `json:"code,omitempty"`
	Message       string `json:"message,omitempty"`
}

func (r *voidResult) table() *table {
	t := &table{}
	t.add("request", r.RequestID)
	t.add("source", r.RequestSource)
	t.add("company", r.CompanyID)
	t.add("void", r.VoidID)
	t.add("state", r.State)
	if r.Code != "" {
		t.add("code", r.Code)
		t.add("message", r.Message)
	}
	return t
}

func (a *app) voidUsage(ctx context.Context, f voidFlags) (*voidResult, error) {
	for _, needed := range []struct{ flag, value string }{{"company", f.company}, {"user", f.user}, {"source", f.source}, {"id", f.id},
		{"timestamp", f.timestamp}, {"reason", f.reason}} {
		if needed.value == "" {
			return nil, invalid("--%s is missing", needed.flag)
		}
	}
	if f.wait < 0 {
		return nil, invalid("--wait %s: it is negative", f.wait)
	}
	at, err := time.Parse(time.RFC3339Nano, f.timestamp)
	if err != nil {
		return nil, invalid("--timestamp %s: it is no time; write it like 2026-11-22T10:00:00.123Z", f.timestamp)
	}
	cfg, err := a.config(config.Kafka)
	if err != nil {
		return nil, err
	}
	result := &voidResult{RequestID: f.requestID, RequestSource: commandSource, CompanyID: f.company,
		VoidID: events.VoidID(f.source, f.id, at.Truncate(time.Millisecond)), State: "requested"}
	if result.RequestID == "" {
		result.RequestID = uuid.NewString()
	}
	message, err := f.message(cfg, result.RequestID)
	if err != nil {
		return nil, err
	}
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return nil, err
	}
	defer done()
	answers := answerLog{client: client, topic: cfg.TopicPrefix + events.TopicCompanyResults, key: f.company}
	if f.wait > 0 {
		if err := answers.begin(ctx); err != nil {
			return nil, err
		}
	}
	if err := publishOne(ctx, cfg, client, message); err != nil {
		return nil, err
	}
	if f.wait == 0 {
		return result, nil
	}
	return result, answers.await(ctx, f.wait, result)
}

// message is the request's record, checked as the service would check it.
func (f *voidFlags) message(cfg *config.Config, id string) (kafkago.Message, error) {
	data, err := json.Marshal(map[string]string{"company_id": f.company, "user_id": f.user, "usage_source": f.source, "usage_id": f.id,
		"timestamp": f.timestamp, "reason": f.reason})
	if err != nil {
		return kafkago.Message{}, err
	}
	e := &events.Envelope{ID: id, Source: commandSource, Type: events.TypeUsageVoidRequested, Time: time.Now().UTC(), Data: data}
	line, err := e.ToStructured([]byte(f.company))
	if err != nil {
		return kafkago.Message{}, invalid("%w", err)
	}
	checker, err := newLineChecker(cfg, events.TopicCompany, modeBinary)
	if err != nil {
		return kafkago.Message{}, err
	}
	message, rejection := checker.check(line)
	if rejection != nil {
		return kafkago.Message{}, invalid("the request would be refused: %s: %s", rejection.Reason, rejection.WithValues())
	}
	return message, nil
}

// publishOne publishes a message to company.events.
func publishOne(ctx context.Context, cfg *config.Config, client *kafkago.Client, message kafkago.Message) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	name := cfg.TopicPrefix + events.TopicCompany
	publisher, err := topic.NewPublisher(ctx, client, name, 0)
	if err != nil {
		return fmt.Errorf("reach topic %s at %s: %w", name, strings.Join(cfg.KafkaBrokers, ","), err)
	}
	return errors.Join(publisher.Publish(ctx, message), publisher.Close())
}

// An answerLog is the partition that a company's results come to.
type answerLog struct {
	client     *kafkago.Client
	topic, key string
	partition  int
	next       int64
}

// begin notes where the log ends, before the request is published.
func (l *answerLog) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	ends, err := kafka.Ends(ctx, l.client, l.topic)
	if err != nil {
		return fmt.Errorf("reach topic %s: %w", l.topic, err)
	}
	l.partition = kafka.Partitioner{}.Balance(kafkago.Message{Key: []byte(l.key)}, slices.Sorted(maps.Keys(ends))...)
	l.next = ends[l.partition].To
	return nil
}

// await reads the log until the answer to the request is there. The error says that it is a refusal, or that none has come.
func (l *answerLog) await(ctx context.Context, wait time.Duration, result *voidResult) error {
	const every = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := l.read(ctx, result)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no answer within %s: the request is in the log and will be answered", wait)
		case err != nil:
			return err
		case result.State == "rejected":
			return fmt.Errorf("the request is refused: %s", result.Code)
		case result.State == "voided":
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// read reads what has come since.
func (l *answerLog) read(ctx context.Context, result *voidResult) error {
	log, err := kafka.Bounds(ctx, l.client, l.topic, l.partition)
	if err != nil || log.To <= l.next {
		return err
	}
	return kafka.ReadLog(ctx, l.client, l.topic, l.partition, kafka.Range{From: l.next, To: log.To}, func(r *events.Record) error {
		l.next = r.Offset + 1
		e, err := events.ParseEnvelope(r)
		if err != nil || e.CausationID != result.RequestID || e.CausationSource != result.RequestSource {
			return nil //nolint:nilerr // of another event
		}
		switch e.Type {
		case events.TypeCompanyUsageVoided:
			result.State = "voided"
		case events.TypeCompanyRejected:
			result.State = "rejected"
			if err := json.Unmarshal(e.Data, result); err != nil { // code and message have the same names
				return fmt.Errorf("read the answer: %w", err)
			}
		default:
			return nil
		}
		return kafka.ErrEnough
	})
}
