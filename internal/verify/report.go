package verify

import (
	"fmt"
	"time"

	"tenantflow/internal/totals"
)

// A Kind says what a finding is.
type Kind string

// The kinds of findings. Each of them is a difference, but for those that Information reports.
const (
	// Missing: an event before the committed offset is no row, no known duplicate and no dead letter.
	Missing Kind = "missing"
	// DoubledRow: more than one row for one place in the log.
	DoubledRow Kind = "doubled_row"
	// DoubledEvent: rows of one identity at several places in the log.
	DoubledEvent Kind = "doubled_event"
	// VoidWithoutUsage: a row that takes back usage which is not stored.
	VoidWithoutUsage Kind = "void_without_usage"
	// MissingVoid: usage that was taken back, and whose row of sign -1 is not there.
	MissingVoid Kind = "missing_void"
	// ForeignRow: a row at a place where the log holds another event, or none.
	ForeignRow Kind = "foreign_row"
	// AlteredRow: the row of an event has other content than the event.
	AlteredRow Kind = "altered_row"
	// BeyondLog: rows, or the committed offset, lie behind the end of the log.
	BeyondLog Kind = "beyond_log"
	// LostUnread: offsets that the log dropped before the group had read them.
	LostUnread Kind = "lost_unread"
	// ForeignLetter: a dead letter that names a place in the log where other bytes are, or none.
	ForeignLetter Kind = "foreign_letter"
	// NotConsumed: the log holds events, and the group has committed nothing at all, so nothing was proven.
	NotConsumed Kind = "not_consumed"
	// WrongTotal: a total is not what the rows add up to.
	WrongTotal Kind = "wrong_total"
	// BrokenAudit: a record of a company's audit log was changed, removed or put in.
	BrokenAudit Kind = "broken_audit"
	// WrongCounter: what is counted of a user's day is not what the log says.
	WrongCounter Kind = "wrong_counter"
	// Unapplied: a company or subscription event before the committed offset is neither in the inbox nor a dead letter.
	Unapplied Kind = "unapplied"
	// MissingResult: the inbox says that a result was published, and it is not on its topic.
	MissingResult Kind = "missing_result"
	// DoubledResult: a result is on its topic once more, under another id.
	DoubledResult Kind = "doubled_result"
	// ForeignResult: a result that no event in the inbox has led to.
	ForeignResult Kind = "foreign_result"
	// AlteredResult: a result on its topic says something else than the inbox does, or the inbox has lost what it says.
	AlteredResult Kind = "altered_result"
	// ChargedTwice: a company was charged more than once for one tier and period.
	ChargedTwice Kind = "charged_twice"
	// WrongTransaction: a row of billing_transactions is wrong in itself, missing, or not what the audit log says.
	WrongTransaction Kind = "wrong_transaction"
	// WrongPayment: a row of payments is missing or not what the audit log says.
	WrongPayment Kind = "wrong_payment"
	// WrongSubscription: a row of subscriptions is not what the audit log leads to.
	WrongSubscription Kind = "wrong_subscription"
	// NoSubscription: a registered company has no row in subscriptions.
	NoSubscription Kind = "no_subscription"
	// WrongHistory: subscription_events and the audit log do not say the same.
	WrongHistory Kind = "wrong_history"
	// WrongUser: user_directory and the users of a company's own schema differ.
	WrongUser Kind = "wrong_user"
	// WrongLimits: what was copied from a subscription is not what it says, or too many or too few users are active.
	WrongLimits Kind = "wrong_limits"
	// StaleConfig: the last configuration that was published of a company is not the one it has.
	StaleConfig Kind = "stale_config"

	// RowAndDeadLetter: a dead letter whose event has become a row. The row decides; the letter is settled.
	RowAndDeadLetter Kind = "row_and_dead_letter"
	// TenantMismatch: a row whose user belonged to another company, as the quota consumer's dead letter says.
	TenantMismatch Kind = "tenant_mismatch"
	// LeftOut: events of a day before the last rebuild that are not counted because there was no counter any more.
	LeftOut Kind = "left_out"
)

// Information reports whether a kind is no difference, and only worth knowing.
func (k Kind) Information() bool { return k == RowAndDeadLetter || k == TenantMismatch || k == LeftOut }

// kinds is the order of a report.
func kinds() []Kind {
	return []Kind{Missing, DoubledRow, DoubledEvent, VoidWithoutUsage, MissingVoid, ForeignRow, AlteredRow, BeyondLog, LostUnread, ForeignLetter,
		NotConsumed, WrongTotal, WrongCounter, Unapplied, MissingResult, DoubledResult, ForeignResult, AlteredResult, ChargedTwice,
		WrongTransaction, WrongPayment, WrongSubscription, NoSubscription, WrongHistory, WrongUser, WrongLimits, BrokenAudit, StaleConfig, RowAndDeadLetter, TenantMismatch, LeftOut}
}

// A Finding is one thing found.
type Finding struct {
	Kind   Kind   `json:"kind"`
	Where  string `json:"where"`           // "usage.events/3/1042" (topic, partition, offset), or view and key
	Event  string `json:"event,omitempty"` // source and id
	Detail string `json:"detail"`
}

// maxSamples is how many findings of a kind are kept. All are counted.
const maxSamples = 1000

// A Group is all findings of one kind.
type Group struct {
	Kind        Kind      `json:"kind"`
	Information bool      `json:"information"` // no difference
	Count       int64     `json:"count"`
	Samples     []Finding `json:"samples"` // the first 1000
}

// Findings are findings by kind.
type Findings []Group

func (f *Findings) group(k Kind) *Group {
	for i := range *f {
		if (*f)[i].Kind == k {
			return &(*f)[i]
		}
	}
	*f = append(*f, Group{Kind: k, Information: k.Information(), Samples: []Finding{}})
	return &(*f)[len(*f)-1]
}

// add takes a finding in.
func (f *Findings) add(finding Finding) {
	g := f.group(finding.Kind)
	g.Count++
	if len(g.Samples) < maxSamples {
		g.Samples = append(g.Samples, finding)
	}
}

// raise counts findings of which there is no sample.
func (f *Findings) raise(k Kind, n int64) {
	if n > 0 {
		f.group(k).Count += n
	}
}

// merge takes the findings of o in.
func (f *Findings) merge(o Findings) {
	for _, from := range o {
		g := f.group(from.Kind)
		g.Count += from.Count
		g.Samples = append(g.Samples, from.Samples[:min(len(from.Samples), maxSamples-len(g.Samples))]...)
	}
}

// Count is the number of findings of a kind.
func (f Findings) Count(k Kind) int64 {
	for _, g := range f {
		if g.Kind == k {
			return g.Count
		}
	}
	return 0
}

// Sorted gives the groups in the order of a report.
func (f Findings) Sorted() Findings {
	sorted := Findings{}
	for _, k := range kinds() {
		for _, g := range f {
			if g.Kind == k {
				sorted = append(sorted, g)
			}
		}
	}
	return sorted
}

// A Partition is what was found out about one partition of the log. Offsets from From to Committed are judged:
// Judged = Rows + Duplicates + DeadLetters + Expired + NoEvent + the missing ones.
type Partition struct {
	Partition int   `json:"partition"`
	LogStart  int64 `json:"log_start"`
	From      int64 `json:"from"`      // LogStart, or the first offset since the time that was asked for
	Committed int64 `json:"committed"` // of the group, read before anything else; -1: nothing
	LogEnd    int64 `json:"log_end"`
	Pending   int64 `json:"pending"` // offsets from Committed on that an insert of unknown outcome covers: not judged

	Judged      int64 `json:"judged"`       // offsets
	Rows        int64 `json:"rows"`         // events that are a row
	Duplicates  int64 `json:"duplicates"`   // events stored from another place
	DeadLetters int64 `json:"dead_letters"` // events that are a dead letter
	Expired     int64 `json:"expired"`      // events without a row that are older than what the table keeps
	NoEvent     int64 `json:"no_event"`     // offsets of transaction markers, aborted and deleted records
	Missing     int64 `json:"missing"`

	RowsBefore  int64 `json:"rows_before"`  // rows from before From: only counted
	RowsAfter   int64 `json:"rows_after"`   // rows from Committed on: only counted
	Differences int64 `json:"differences"`  // of this partition's log and rows
	NotConsumed int64 `json:"not_consumed"` // offsets from Committed to LogEnd
}

// DeadLetters is what was read of the dead letter topic.
type DeadLetters struct {
	Topic     string `json:"topic"`
	Read      int64  `json:"read"`       // records
	Gone      int64  `json:"gone"`       // offsets that its log no longer holds
	NoLetters int64  `json:"no_letters"` // records that are no dead letters
}

// Repairs is what was mended.
type Repairs struct {
	RowsRemoved   int64 `json:"rows_removed"`   // later copies of an event
	DeadLetters   int64 `json:"dead_letters"`   // written for removed rows with other data than the first
	TotalsMended  int64 `json:"totals_mended"`  // by inserting the difference
	Configs       int64 `json:"configs"`        // configurations published again
	Results       int64 `json:"results"`        // results published again
	TotalsRebuilt int64 `json:"totals_rebuilt"` // whose largest timestamp was too large, and lowered in the store
	Sums          int64 `json:"sums"`           // of users' counters that were made what their shares add up to

	// Recounts is 1 if the service was made to count again, from a UTC day on. It does so after the run.
	Recounts     int64  `json:"recounts"`
	RecountsFrom string `json:"recounts_from,omitempty"`
}

func (r *Repairs) add(o Repairs) {
	r.RowsRemoved += o.RowsRemoved
	r.DeadLetters += o.DeadLetters
	r.TotalsMended += o.TotalsMended
	r.TotalsRebuilt += o.TotalsRebuilt
	r.Configs += o.Configs
	r.Results += o.Results
	r.Sums += o.Sums
	r.Recounts += o.Recounts
	if o.RecountsFrom != "" {
		r.RecountsFrom = o.RecountsFrom
	}
}

func (r *Repairs) empty() bool { return *r == Repairs{} }

// Report is the result of a run.
type Report struct {
	Topic   string    `json:"topic"`
	Group   string    `json:"group"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Since   time.Time `json:"since,omitzero"` // only what came since then was looked at; zero: everything was

	Partitions  []Partition        `json:"partitions"`
	DeadLetters DeadLetters        `json:"dead_letters"`
	OtherTopics int64              `json:"other_topics"` // rows that came from other topics: only counted
	Aggregates  []totals.Aggregate `json:"aggregates"`
	Companies   int64              `json:"companies"` // whose configuration was looked at
	Counters    Counters           `json:"counters"`
	Inboxes     []Inbox            `json:"inboxes"` // of company and of subscription events
	Results     Results            `json:"results"`
	Books       Books              `json:"books"`
	Unproven    []string           `json:"unproven"` // what could not be judged as a whole, and why
	Findings    Findings           `json:"findings"`
	Plan        Plan               `json:"plan"` // what a repair would do about the findings; empty: nothing
	Repairs     Repairs            `json:"repairs"`
	Notes       []string           `json:"notes"`
}

// Differences is the number of findings that are differences, information left out.
func (r *Report) Differences() int64 { return r.Findings.differences() }

func (f Findings) differences() int64 {
	var n int64
	for _, g := range f {
		if !g.Information {
			n += g.Count
		}
	}
	return n
}

// NotJudged is the number of totals that differ, and of which nothing could be said because inserts into them were under
// way in every look, or one is pending.
func (r *Report) NotJudged() int64 {
	n := int64(0)
	for _, a := range r.Aggregates {
		n += a.Busy
	}
	return n
}

// Sum adds the partitions up.
func (r *Report) Sum() Partition {
	var s Partition
	for _, p := range r.Partitions {
		s.Judged += p.Judged
		s.Rows += p.Rows
		s.Duplicates += p.Duplicates
		s.DeadLetters += p.DeadLetters
		s.Expired += p.Expired
		s.NoEvent += p.NoEvent
		s.Missing += p.Missing
		s.RowsBefore += p.RowsBefore
		s.RowsAfter += p.RowsAfter
		s.Differences += p.Differences
		s.NotConsumed += p.NotConsumed
		s.Pending += p.Pending
	}
	return s
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// where names a place in the log.
func where(topic string, partition int, offset int64) string {
	return fmt.Sprintf("%s/%d/%d", topic, partition, offset)
}
