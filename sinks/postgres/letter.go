package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
)

//go:embed letter_put.sql
var letterPutSQL string

// A LetterState says what was done about a dead letter.
type LetterState string

// The states of dead letters. A letter that nothing was done about is open.
const (
	LetterOpen     LetterState = "open"
	LetterRedriven LetterState = "redriven" // published again
	LetterDropped  LetterState = "dropped"  // nothing will be done
	LetterSettled  LetterState = "settled"  // its event had its effect already
)

// LetterStates lists the states.
func LetterStates() []LetterState {
	return []LetterState{LetterOpen, LetterRedriven, LetterDropped, LetterSettled}
}

// A LetterChange is what was done about a dead letter, who did it, why and when.
type LetterChange struct {
	State LetterState
	By    string
	Why   string
	At    time.Time
	Task  string // that redrove it
}

// A LetterRef names a dead letter, with what is known of its event. What is not known is empty.
type LetterRef struct {
	events.Origin
	Reason     events.Reason
	Company    string
	Source, ID string
}

// A LetterKind is what dead letters are counted by.
type LetterKind struct {
	Topic  string // the input topic, with its prefix
	Reason events.Reason
}

// HandledLetters counts the letters that are redriven, dropped or settled. It reads the whole table.
func (s *Store) HandledLetters(ctx context.Context) (map[LetterKind]int64, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `SELECT origin_topic, reason, count(*) FROM public.dead_letters WHERE state <> 'open' GROUP BY origin_topic, reason`)
	if err != nil {
		return nil, s.explain("count the dead letters that were dealt with", err)
	}
	counts := map[LetterKind]int64{}
	var kind LetterKind
	var n int64
	if _, err = pgx.ForEachRow(rows, []any{&kind.Topic, &kind.Reason, &n}, func() error {
		counts[kind] = n
		return nil
	}); err != nil {
		return nil, s.explain("count the dead letters that were dealt with", err)
	}
	return counts, nil
}

// LetterChanges returns what was done about dead letters, by their origins. Open letters that nothing was ever done about are left out.
func (s *Store) LetterChanges(ctx context.Context, origins []events.Origin) (map[events.Origin]LetterChange, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	a := letterArrays(len(origins))
	for _, o := range origins {
		a.add(LetterRef{Origin: o})
	}
	rows, err := s.pool.Query(ctx, `SELECT d.origin_group, d.origin_topic, d.origin_partition, d.origin_offset, d.state, d.changed_by, d.why, d.changed_at,
			coalesce(d.task_id, '')
		FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[]) AS o (origin_group, origin_topic, origin_partition, origin_offset)
		JOIN public.dead_letters AS d USING (origin_topic, origin_partition, origin_offset, origin_group)`, a.groups, a.topics, a.partitions, a.offsets)
	if err != nil {
		return nil, s.explain("read the states of dead letters", err)
	}
	found := map[events.Origin]LetterChange{}
	var o events.Origin
	var c LetterChange
	_, err = pgx.ForEachRow(rows, []any{&o.Group, &o.Topic, &o.Partition, &o.Offset, &c.State, &c.By, &c.Why, &c.At, &c.Task}, func() error {
		c.At = c.At.UTC()
		found[o] = c
		return nil
	})
	if err != nil {
		return nil, s.explain("read the states of dead letters", err)
	}
	return found, nil
}

// PutLetters brings letters that are open to the state of a change, in a transaction of the caller, and returns those that it changed.
// The time is the server's.
func PutLetters(ctx context.Context, tx pgx.Tx, letters []LetterRef, to LetterChange) ([]LetterRef, error) {
	if len(letters) == 0 {
		return nil, nil
	}
	a := letterArrays(len(letters))
	for _, l := range letters {
		a.add(l)
	}
	rows, err := tx.Query(ctx, letterPutSQL, a.groups, a.topics, a.partitions, a.offsets, a.reasons, string(to.State), stored(to.By), stored(to.Why), to.Task,
		a.companies, a.sources, a.ids)
	if err != nil {
		return nil, explain("write the states of dead letters", err)
	}
	places, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return nil, explain("write the states of dead letters", err)
	}
	changed := make([]LetterRef, len(places))
	for i, place := range places {
		changed[i] = letters[place-1]
	}
	return changed, nil
}

// A Drop is what dropping dead letters is for, and who does it.
type Drop struct {
	ID  string // of the run: the audit records name it
	By  string
	Why string
}

// droppedAction is the action of audit records about dropped letters.
const droppedAction = "dead_letters.dropped"

// DropLetters drops those of the letters that are open, and writes a record into the audit log of each company whose letters are
// among them, in one transaction. It returns how many it dropped. Companies that are not registered have no audit log; the table
// dead_letters alone says what was done about their letters.
func (s *Store) DropLetters(ctx context.Context, letters []LetterRef, d Drop) (int, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	dropped := 0
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// The companies' locks come before everything else, as in every transaction, and in one order.
		known, err := lockKnown(ctx, tx, letters)
		if err != nil {
			return err
		}
		changed, err := PutLetters(ctx, tx, letters, LetterChange{State: LetterDropped, By: d.By, Why: d.Why})
		if err != nil {
			return err
		}
		dropped = len(changed)
		of := map[string][]LetterRef{}
		for _, l := range changed {
			if _, ok := known[l.Company]; ok {
				of[l.Company] = append(of[l.Company], l)
			}
		}
		for _, company := range slices.Sorted(maps.Keys(of)) {
			if err := auditDrop(ctx, tx, company, of[company], d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, s.explain("drop dead letters", err)
	}
	return dropped, nil
}

// lockKnown takes the locks of the companies of letters that are registered, and returns them.
func lockKnown(ctx context.Context, tx pgx.Tx, letters []LetterRef) (map[string]struct{}, error) {
	names := map[string]struct{}{}
	for _, l := range letters {
		if l.Company != "" && !strings.ContainsRune(l.Company, 0) {
			names[l.Company] = struct{}{}
		}
	}
	rows, err := tx.Query(ctx, "SELECT company_id FROM public.companies WHERE company_id = ANY ($1) ORDER BY company_id", slices.Sorted(maps.Keys(names)))
	if err != nil {
		return nil, err
	}
	companies, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	known := make(map[string]struct{}, len(companies))
	for _, company := range companies {
		if _, err := tx.Exec(ctx, "SELECT public.lock_company($1)", company); err != nil {
			return nil, err
		}
		known[company] = struct{}{}
	}
	return known, nil
}

// auditDrop appends a record to a company's audit log.
func auditDrop(ctx context.Context, tx pgx.Tx, company string, letters []LetterRef, d Drop) error {
	type dropped struct {
		Origin  string `json:"origin"`
		Reason  string `json:"reason"`
		EventID string `json:"event_id,omitempty"`
	}
	details := struct {
		By      string    `json:"by"`
		Why     string    `json:"why"`
		Letters []dropped `json:"letters"`
	}{By: stored(d.By), Why: stored(d.Why)}
	for _, l := range letters {
		details.Letters = append(details.Letters, dropped{fmt.Sprintf("%s/%s/%d/%d", l.Group, l.Topic, l.Partition, l.Offset), string(l.Reason), stored(l.ID)})
	}
	text, err := json.Marshal(details)
	if err != nil {
		return fmt.Errorf("write the audit record of dropped letters of company %s: %w", company, err)
	}
	r := AuditRecord{CompanyID: company, Source: events.SourceOf("dlq"), EventID: d.ID, Action: droppedAction, Details: string(text)}
	err = tx.QueryRow(ctx, `SELECT coalesce(h.audit_seq, 0) + 1, coalesce(h.audit_hash, ''), clock_timestamp()
		FROM (SELECT 1) AS one LEFT JOIN public.company_heads AS h ON h.company_id = $1`, company).Scan(&r.Seq, &r.PreviousHash, &r.OccurredAt)
	if err != nil {
		return err
	}
	r.Hash = r.Sum()
	b := &pgx.Batch{}
	appendAudit(b, &r)
	b.Queue(`INSERT INTO public.company_heads AS h (company_id, last_effect_at, audit_seq, audit_hash) VALUES ($1, 'epoch', $2, $3)
		ON CONFLICT (company_id) DO UPDATE SET audit_seq = EXCLUDED.audit_seq, audit_hash = EXCLUDED.audit_hash`, company, r.Seq, r.Hash)
	return tx.SendBatch(ctx, b).Close()
}

// stored is a text that Postgres can hold.
func stored(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// arrays are the columns of letters, for a statement.
type arrays struct {
	groups, topics, reasons, companies, sources, ids []string
	partitions                                       []int32
	offsets                                          []int64
}

func letterArrays(n int) *arrays {
	return &arrays{groups: make([]string, 0, n), topics: make([]string, 0, n), partitions: make([]int32, 0, n), offsets: make([]int64, 0, n)}
}

func (a *arrays) add(l LetterRef) {
	a.groups, a.topics = append(a.groups, stored(l.Group)), append(a.topics, stored(l.Topic))
	a.partitions = append(a.partitions, int32(l.Partition)) // #nosec G115 -- Kafka's are 32 bits
	a.offsets = append(a.offsets, l.Offset)
	a.reasons, a.companies = append(a.reasons, stored(string(l.Reason))), append(a.companies, stored(l.Company))
	a.sources, a.ids = append(a.sources, stored(l.Source)), append(a.ids, stored(l.ID))
}
