package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/postgres"
)

// A missingVoids looks for usage that was taken back, says the inbox, and that still counts: the row of sign -1 is not there. The record
// of the void was lost with its topic, or became a dead letter; or the row was deleted by hand; or the usage was published once more from
// an archive, and its void was not.
type missingVoids struct {
	v        *Verifier
	at       *positions
	consumed map[int]time.Time // by partition: voids that were published before are stored
	waiting  []recordedVoid    // to be looked up together

	looked   int64
	young    int64 // not judged
	findings Findings
	missing  []postgres.Result
}

// A recordedVoid is what the inbox says of a void that was published.
type recordedVoid struct {
	usage  clickhouse.EventKey
	cause  postgres.EventID
	result postgres.Result
}

// voidsAtOnce is how many voids one look-up is about.
const voidsAtOnce = 1000

// recorded takes in what an event of the inbox has led to.
func (m *missingVoids) recorded(ctx context.Context, r *postgres.Recorded) error {
	if r.Faulty {
		return nil
	}
	for _, one := range r.Results {
		if one.Event == nil || one.Event.Type != events.TypeUsageVoided {
			continue
		}
		var data struct {
			Company   string    `json:"company_id"`
			User      string    `json:"user_id"`
			Timestamp time.Time `json:"timestamp"`
			Source    string    `json:"voids_source"`
			ID        string    `json:"voids_id"`
		}
		if err := json.Unmarshal(one.Event.Data, &data); err != nil {
			m.findings.add(Finding{Kind: AlteredResult, Where: "inbox", Event: r.Source + " " + r.ID, Detail: "its void can't be read: " + err.Error()})
			continue
		}
		switch until, err := m.consumedUntil(ctx, m.partitionOf(&one)); {
		case err != nil:
			return err
		case m.v.voids[one.Event.ID], !r.PublishedAt.Before(until):
			m.young++
			continue
		}
		// Usage and void may stand in two parts of the table, which do not go in one moment.
		if data.Timestamp.Before(m.at.now.UTC().AddDate(-2, 0, 2)) {
			continue
		}
		m.looked++
		m.waiting = append(m.waiting, recordedVoid{
			usage: clickhouse.EventKey{Source: data.Source, ID: data.ID, Company: data.Company, User: data.User, Timestamp: data.Timestamp.UnixMilli()},
			cause: r.EventID, result: one,
		})
	}
	if len(m.waiting) < voidsAtOnce {
		return nil
	}
	return m.look(ctx)
}

// partitionOf is where a void goes: to the partition of its usage's row, or by its key where that is not of this topic.
func (m *missingVoids) partitionOf(void *postgres.Result) int {
	if void.Partition != nil {
		return *void.Partition
	}
	ids := make([]int, len(m.at.partitions))
	for i := range ids {
		ids[i] = m.at.partitions[i].Partition
	}
	return kafka.Partitioner{}.Balance(kafkago.Message{Key: []byte(void.Key)}, ids...)
}

// consumedUntil is the time before which voids of a partition that were published are stored, or were refused: by Postgres' clock, with room
// for clocks that differ where the broker's had to be taken.
func (m *missingVoids) consumedUntil(ctx context.Context, partition int) (time.Time, error) {
	if until, known := m.consumed[partition]; known {
		return until, nil
	}
	var until time.Time
	for i := range m.at.partitions {
		p := &m.at.partitions[i]
		if p.Partition != partition || p.Committed < 0 {
			continue
		}
		if p.Committed >= p.log.To {
			until = m.at.booked
			continue
		}
		next, err := m.v.firstOf(ctx, m.v.cfg.Topic, partition, kafka.Range{From: p.Committed, To: p.log.To})
		if err != nil {
			return until, err
		}
		until = m.at.booked
		if cut := next.Add(-clockSlack); !next.IsZero() && cut.Before(until) {
			until = cut
		}
	}
	m.consumed[partition] = until
	return until, nil
}

// look says which of the voids that wait are missing: those whose usage is stored and not taken back.
func (m *missingVoids) look(ctx context.Context) error {
	all := m.waiting
	m.waiting = nil
	if len(all) == 0 {
		return nil
	}
	keys := make([]clickhouse.EventKey, len(all))
	for i := range all {
		keys[i] = all[i].usage
	}
	stored, err := m.v.store.FindUsage(ctx, keys)
	if err != nil {
		return err
	}
	var asked []clickhouse.EventKey
	for i, usage := range stored {
		if usage != nil {
			asked = append(asked, keys[i])
		}
	}
	voided, err := m.v.voided(ctx, asked)
	if err != nil {
		return err
	}
	for i := range all {
		if stored[i] == nil || voided[keys[i]] {
			continue
		}
		void := all[i].result
		m.findings.add(Finding{Kind: MissingVoid, Where: m.v.cfg.Topic + "/" + strconv.Itoa(m.partitionOf(&void)), Event: void.Event.Source + " " + void.Event.ID,
			Detail: fmt.Sprintf("%s %s of company %s was taken back, as %s %s asked, and no row of sign -1 does so", keys[i].Source, keys[i].ID, keys[i].Company,
				all[i].cause.Source, all[i].cause.ID)})
		if len(m.missing) < maxResults {
			m.missing = append(m.missing, void)
		}
	}
	return nil
}

// voided returns those of some usage that a row takes back.
func (v *Verifier) voided(ctx context.Context, usage []clickhouse.EventKey) (map[clickhouse.EventKey]bool, error) {
	voided := map[clickhouse.EventKey]bool{}
	if len(usage) == 0 {
		return voided, nil
	}
	companies, users, times := make([]string, len(usage)), make([]string, len(usage)), make([]int64, len(usage))
	oldest, newest := usage[0].Timestamp, usage[0].Timestamp
	for i, k := range usage {
		companies[i], users[i], times[i] = k.Company, k.User, k.Timestamp
		oldest, newest = min(oldest, k.Timestamp), max(newest, k.Timestamp)
	}
	answer, err := totals.Ask(totals.LongQuery(ctx, nil), v.conn, statement("voided", nil), totals.End{Row: "'', '', toInt64(0), '', ''"},
		oldest, newest, times, companies, users, times)
	if err != nil {
		return nil, fmt.Errorf("look for the voids of %d usage events: %w", len(usage), err)
	}
	var k clickhouse.EventKey
	for answer.Next(&k.Company, &k.User, &k.Timestamp, &k.Source, &k.ID) {
		voided[k] = true
	}
	if err := answer.Close(); err != nil {
		return nil, fmt.Errorf("look for the voids of %d usage events: %w", len(usage), err)
	}
	return voided, nil
}
