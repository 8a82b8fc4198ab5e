package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/topic"
)

const (
	modeBinary     = "binary"
	modeStructured = "structured"

	// maxLineBytes bounds the memory a line may take. No broker takes a message that long.
	maxLineBytes = 64 << 20
	// maxListed is how many invalid lines the result names; all are printed on standard error.
	maxListed = 100
)

// produceFlags are the flags of produce.
type produceFlags struct {
	topic, file, mode  string
	skipInvalid, check bool
}

func newProduceCommand(a *app) *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use:   "produce --topic T --file F|-",
		Short: "Check events in lines of JSON and publish them to a topic",
		Long: `Produce reads lines of JSON, each a CloudEvent in structured mode with the record's key as the extension
partitionkey ("generate" writes such lines), checks each against the rules of its topic as the service would, and
publishes it. Empty lines are skipped.

An event that the service would refuse is reported on standard error as FILE:LINE: reason: words, and produce stops
there: what came before it is published, and the exit code is 1. With --skip-invalid it goes on without that event,
and the exit code is still 1. With --check nothing is published and every line is checked.

Every message is acknowledged by all in-sync replicas. One whose acknowledgement got lost is sent again, so it may
be in the log twice; that is harmless, because an event has its effect once.`,
		Example: `  tenantflow produce --topic usage.events --file events.jsonl
  tenantflow generate usage --count 1000 | tenantflow produce --topic usage.events --file - --mode structured
  tenantflow produce --topic company.events --file companies.jsonl --check`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.produce(cmd, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.topic, "topic", "", "topic, without the configured prefix")
	flags.StringVar(&f.file, "file", "", "file with the events, - for standard input")
	flags.StringVar(&f.mode, "mode", modeBinary, "CloudEvents content mode to publish in: binary or structured")
	flags.BoolVar(&f.skipInvalid, "skip-invalid", false, "leave invalid events out and go on")
	flags.BoolVar(&f.check, "check", false, "only check; publish nothing, connect to nothing")
	return cmd
}

func (a *app) produce(cmd *cobra.Command, f produceFlags) error {
	if f.mode != modeBinary && f.mode != modeStructured {
		return invalid("--mode %s: there is no such content mode; choose binary or structured", f.mode)
	}
	if f.file == "" {
		return invalid("--file is missing; - reads standard input")
	}
	var stores []config.Store
	if !f.check {
		stores = append(stores, config.Kafka)
	}
	cfg, err := a.config(stores...)
	if err != nil {
		return err
	}
	name, err := topicNamed(f.topic, cfg.TopicPrefix)
	if err != nil {
		return err
	}
	in, fileName, err := openLines(cmd, f.file)
	if err != nil {
		return err
	}
	defer in.Close()
	checker, err := newLineChecker(cfg, name, f.mode)
	if err != nil {
		return err
	}

	p := production{
		checker: checker, flags: f, fileName: fileName, errOut: cmd.ErrOrStderr(),
		progress: newProgress(cmd.ErrOrStderr(), "produce"),
		result:   produced{Topic: cfg.TopicPrefix + name, Mode: f.mode, Reasons: map[events.Reason]int{}, Listed: []invalidLine{}},
	}
	failure := p.run(cmd.Context(), cfg, in)
	if err := a.show(cmd.OutOrStdout(), &p.result, p.result.table); err != nil {
		return err
	}
	return failure
}

// topicNamed finds the topic and returns its name without the prefix, with or without which it may be given.
func topicNamed(given, prefix string) (string, error) {
	var known []string
	for _, t := range events.Topics() {
		if given == t.Name || given == prefix+t.Name {
			return t.Name, nil
		}
		known = append(known, t.Name)
	}
	if given == "" {
		return "", invalid("--topic is missing; choose one of %s", strings.Join(known, ", "))
	}
	return "", invalid("--topic %s: there is no such topic; choose one of %s", given, strings.Join(known, ", "))
}

func openLines(cmd *cobra.Command, file string) (in io.ReadCloser, name string, err error) {
	if file == "-" {
		return io.NopCloser(cmd.InOrStdin()), "stdin", nil
	}
	opened, err := os.Open(file)
	if err != nil {
		return nil, "", invalid("--file: %w", err)
	}
	return opened, file, nil
}

// produced is the outcome of the lines.
type produced struct {
	Topic     string                `json:"topic"`
	Mode      string                `json:"mode"`
	Lines     int                   `json:"lines"` // read, empty ones left out
	Published int64                 `json:"published"`
	Invalid   int                   `json:"invalid"`
	Reasons   map[events.Reason]int `json:"reasons,omitempty"` // of the invalid lines
	Listed    []invalidLine         `json:"invalid_lines"`     // the first ones
	Seconds   float64               `json:"seconds"`
}

type invalidLine struct {
	Line   int           `json:"line"`
	Reason events.Reason `json:"reason"`
	Detail string        `json:"detail"`
}

func (r *produced) table() *table {
	t := &table{rows: [][]string{
		{"topic", r.Topic},
		{"lines", fmt.Sprint(r.Lines)},
		{"published", fmt.Sprint(r.Published)},
		{"invalid", fmt.Sprint(r.Invalid)},
	}}
	reasons := make([]string, 0, len(r.Reasons))
	for reason := range r.Reasons {
		reasons = append(reasons, string(reason))
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		t.add("  "+reason, fmt.Sprint(r.Reasons[events.Reason(reason)]))
	}
	t.add("seconds", fmt.Sprintf("%.1f", r.Seconds))
	return t
}

// A production is one run of the command.
type production struct {
	checker   *lineChecker
	flags     produceFlags
	fileName  string
	errOut    io.Writer
	progress  *progress
	publisher *topic.Publisher // nil when lines are only checked
	result    produced
}

func (p *production) run(ctx context.Context, cfg *config.Config, in io.Reader) error {
	start := time.Now()
	if !p.flags.check {
		client, done, err := cfg.KafkaClient()
		if err != nil {
			return err
		}
		defer done()
		if err := p.connect(ctx, cfg, client); err != nil {
			return err
		}
	}
	err := p.read(ctx, in)
	if p.publisher != nil {
		err = errors.Join(err, p.publisher.Close())
		p.result.Published = p.publisher.Acknowledged()
	}
	p.result.Seconds = time.Since(start).Round(time.Millisecond).Seconds()
	if p.progress.terminal || time.Since(start) > p.progress.every {
		p.progress.done(slog.Int64("published", p.result.Published), slog.Int("invalid", p.result.Invalid))
	}
	switch {
	case err != nil && p.publisher != nil:
		return fmt.Errorf("%w (%d events of %d lines are published)", err, p.result.Published, p.result.Lines)
	case err != nil:
		return err
	case p.result.Invalid > 0:
		return fmt.Errorf("%d of %d lines are invalid", p.result.Invalid, p.result.Lines)
	}
	return nil
}

func (p *production) connect(ctx context.Context, cfg *config.Config, client *kafka.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	var err error
	p.publisher, err = topic.NewPublisher(ctx, client, p.result.Topic, 0)
	switch {
	case errors.Is(err, kafka.UnknownTopicOrPartition):
		return fmt.Errorf(`there is no topic %s at %s; "tenantflow migrate" creates it`, p.result.Topic, strings.Join(cfg.KafkaBrokers, ","))
	case err != nil:
		return fmt.Errorf("reach Kafka at %s: %w", strings.Join(cfg.KafkaBrokers, ","), err)
	}
	p.checker.maxBytes = p.publisher.MaxBytes()
	return nil
}

// read checks line after line and publishes the valid ones, in portions.
func (p *production) read(ctx context.Context, in io.Reader) error {
	const portion = 500
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 256<<10), maxLineBytes)
	var messages []kafka.Message
	publish := func() error {
		if p.publisher == nil || len(messages) == 0 {
			messages = nil
			return nil
		}
		err := p.publisher.Publish(ctx, messages...)
		messages = nil // they belong to the publisher now
		p.progress.update(slog.Int64("published", p.publisher.Acknowledged()), slog.Int("invalid", p.result.Invalid))
		return err
	}
	for number := 1; scanner.Scan(); number++ {
		if err := ctx.Err(); err != nil {
			return errors.Join(publish(), errors.New("stopped"))
		}
		line := scanner.Bytes()
		if len(strings.TrimSpace(string(line))) == 0 {
			continue
		}
		p.result.Lines++
		message, rejection := p.checker.check(line)
		if rejection != nil {
			p.refuse(number, rejection)
			if !p.flags.skipInvalid && !p.flags.check {
				return errors.Join(publish(), fmt.Errorf("%s:%d is invalid", p.fileName, number))
			}
			continue
		}
		messages = append(messages, message)
		if len(messages) == portion {
			if err := publish(); err != nil {
				return err
			}
		}
	}
	if err := scanner.Err(); err != nil {
		return errors.Join(publish(), fmt.Errorf("read %s behind line %d: %w", p.fileName, p.result.Lines, err))
	}
	return publish()
}

// refuse reports an invalid line.
func (p *production) refuse(number int, r *events.Rejection) {
	p.result.Invalid++
	p.result.Reasons[r.Reason]++
	if len(p.result.Listed) < maxListed {
		p.result.Listed = append(p.result.Listed, invalidLine{number, r.Reason, r.WithValues()})
	}
	fmt.Fprintf(p.errOut, "%s:%d: %s: %s\n", p.fileName, number, r.Reason, r.WithValues())
}
