package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/deadletter"
	"tenantflow/sinks/postgres"
)

func newDLQShowCommand(a *app) *cobra.Command {
	var asHex, raw bool
	cmd := &cobra.Command{
		Use:   "show ORIGIN [--hex | --raw]",
		Short: "Show one dead letter: why it failed, its headers and its original bytes",
		Long: `Show prints a dead letter: why and when its event failed, what was done about it, all headers of the original record and its
bytes, as text where they are UTF-8 and as hex otherwise. Characters that a terminal may obey are written as escapes.

--raw writes the original bytes to standard output, exactly as they are, and nothing else.

It also works while Postgres is down: the state of the letter is unknown then.

Exit codes: 0 shown; 1 there is no such letter, or Kafka does not answer; 2 the origin or the configuration is wrong.`,
		Example: `  tenantflow dlq show tenantflow.usage/usage.events/3/1042
  tenantflow dlq show tenantflow.usage/usage.events/3/1042 --raw > value.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return invalid("%s takes one origin, but got %d arguments (see %[1]s --help)", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := deadletter.ParseOrigin(args[0])
			if err != nil {
				return invalid("%w", err)
			}
			if asHex && raw {
				return invalid("--hex shows the bytes, --raw writes them out; give one of them")
			}
			return a.showLetter(cmd, o, asHex, raw)
		},
	}
	cmd.Flags().BoolVar(&asHex, "hex", false, "show the bytes as hex, also where they are text")
	cmd.Flags().BoolVar(&raw, "raw", false, "write the original bytes to standard output, and nothing else")
	return cmd
}

func (a *app) showLetter(cmd *cobra.Command, o events.Origin, asHex, raw bool) error {
	cfg, err := a.config(config.Kafka)
	if err != nil {
		return err
	}
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer done()
	l, looked, err := (&deadletter.Reader{Client: client}).Find(cmd.Context(), o)
	if errors.Is(err, deadletter.ErrNoLetter) {
		n := int64(0)
		for _, one := range looked {
			n += one.To - one.From
		}
		return fmt.Errorf("%s: %w; looked at all %d offsets of %s", deadletter.FormatOrigin(o), err, n, events.DeadLetterTopic(o.Topic))
	}
	if err != nil {
		return fmt.Errorf("look for the dead letter at %s: %w", strings.Join(cfg.KafkaBrokers, ","), err)
	}
	if raw {
		return writeRaw(cmd.OutOrStdout(), l)
	}
	states := openLetterStates(cmd.Context(), cfg)
	defer states.close()
	changes := states.of(cmd.Context(), []events.Origin{o})
	shown := shownLetter{listedLetter: listed(l, states.state(changes, o)), Key: shownBytes(l.Key, asHex), Value: shownBytes(l.Value, asHex), Large: l.Large}
	if c, ok := changes[o]; ok {
		shown.Change = &shownChange{c.By, c.Why, c.At, c.Task}
		shown.change = changeLine(c)
	}
	for _, h := range l.Headers {
		shown.Headers = append(shown.Headers, shownHeader{h.Key, shownBytes(h.Value, asHex)})
	}
	if states.failure != nil {
		shown.StatesUnknown = states.failure.Error()
	}
	if a.output == outputJSON {
		return a.show(cmd.OutOrStdout(), &shown, nil)
	}
	if err := a.show(cmd.OutOrStdout(), nil, shown.table); err != nil {
		return err
	}
	return shown.write(cmd.OutOrStdout(), l.Value)
}

func writeRaw(w io.Writer, l *deadletter.Letter) error {
	if l.Large != nil {
		return fmt.Errorf("%s: the letter is too_large and holds sizes and hashes in place of the original bytes; fetch the record from %s, partition %d, offset %d, while it is kept",
			deadletter.FormatOrigin(l.Origin), l.Topic, l.Partition, l.Offset)
	}
	if _, err := w.Write(l.Value); err != nil {
		return fmt.Errorf("writing the bytes: %w", err)
	}
	return nil
}

// shownLetter is what dlq show shows.
type shownLetter struct {
	listedLetter
	Change  *shownChange        `json:"change,omitempty"` // what was done about it last
	Key     showableBytes       `json:"key"`
	Headers []shownHeader       `json:"headers"`
	Value   showableBytes       `json:"value"`
	Large   *events.LargeRecord `json:"large,omitempty"` // of a too_large letter, what is known of the bytes

	StatesUnknown string `json:"states_unknown,omitempty"` // why

	change string
}

type shownChange struct {
	By   string    `json:"by"`
	Why  string    `json:"why"`
	At   time.Time `json:"at"`
	Task string    `json:"task_id,omitempty"`
}

type shownHeader struct {
	Key   string        `json:"key"`
	Value showableBytes `json:"value"`
}

// showableBytes are bytes as text or as hex. In JSON: a string, null, or an object with the member hex.
type showableBytes struct {
	bytes []byte
	asHex bool
}

func shownBytes(b []byte, asHex bool) showableBytes {
	return showableBytes{b, asHex || !utf8.Valid(b)}
}

func (s showableBytes) MarshalJSON() ([]byte, error) {
	switch {
	case s.bytes == nil:
		return []byte("null"), nil
	case s.asHex:
		return json.Marshal(map[string]string{"hex": hex.EncodeToString(s.bytes)})
	}
	return json.Marshal(string(s.bytes))
}

func (s showableBytes) line() string {
	switch {
	case s.bytes == nil:
		return "none"
	case s.asHex:
		return "hex " + hex.EncodeToString(s.bytes)
	}
	return onLine(string(s.bytes), 0)
}

func (s *shownLetter) table() *table {
	t := &table{}
	add := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	add("origin", onLine(s.Origin, 0))
	add("reason", onLine(string(s.Reason), 0))
	add("error", onLine(s.Error, 0))
	add("attempts", strconv.Itoa(s.Attempts))
	add("failed at", s.FailedAt.Format(time.RFC3339Nano))
	switch {
	case s.StatesUnknown != "":
		add("state", unknownState+": "+onLine(s.StatesUnknown, 0))
	case s.change != "":
		add("state", s.change)
	default:
		add("state", string(postgres.LetterOpen))
	}
	add("event", onLine(s.ID, 0))
	add("source", onLine(s.Source, 0))
	add("type", onLine(s.Type, 0))
	add("company", onLine(s.Company, 0))
	add("user", onLine(s.User, 0))
	if s.ReplayID != "" {
		add("came from", "a redrive or replay, task "+onLine(s.ReplayID, 0))
	}
	if s.ReplayOf != "" {
		add("redriven from", onLine(s.ReplayOf, 0))
	}
	add("letter", fmt.Sprintf("%s, written at %s", s.Place, s.Written.Format(time.RFC3339)))
	add("key", s.Key.line())
	for _, h := range s.Headers {
		t.add("header "+onLine(h.Key, 0), h.Value.line())
	}
	if large := s.Large; large != nil {
		t.add("bytes", fmt.Sprintf("not here: key %d, headers %d, value %d bytes; SHA-256 of the value %s", large.KeyBytes, large.HeaderBytes, large.ValueBytes, large.ValueSHA256))
	} else {
		t.add("value", fmt.Sprintf("%d bytes", s.Bytes))
	}
	return t
}

// write writes the value below the table.
func (s *shownLetter) write(w io.Writer, value []byte) error {
	if s.Large != nil || len(value) == 0 {
		return nil
	}
	text := hex.Dump(value)
	if !s.Value.asHex {
		text = escapeControls(string(value), true)
	}
	if _, err := fmt.Fprintf(w, "\n%s\n", strings.TrimRight(text, "\n")); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
