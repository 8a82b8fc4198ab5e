package operations

import (
	"time"

	"tenantflow/internal/health"
)

// A Report is all that the page shows. It is the JSON of GET /v1/operations. Times are UTC.
type Report struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	// Ready says whether every part of this process does its work.
	Ready bool `json:"ready"`
	// Attention is what an operator should look at, in words, the worst first; empty: nothing.
	Attention []string `json:"attention"`

	Parts       Panel[[]Part]     `json:"parts"`
	Lag         []Panel[Lag]      `json:"lag"` // one for each consumer group
	Stores      []Panel[Store]    `json:"stores"`
	DeadLetters Panel[Letters]    `json:"dead_letters"`
	Tasks       Panel[[]Task]     `json:"tasks"`
	Quotas      Panel[Quotas]     `json:"quotas"`
	Drift       Panel[Drift]      `json:"drift"`
	Rejections  Panel[Rejections] `json:"rejections"`
	Business    Panel[Business]   `json:"business"`
}

// Elsewhere is the state of a part that does not run in this process.
const Elsewhere = "elsewhere"

// A Part is the state of one part.
type Part struct {
	Part    string    `json:"part"`
	State   string    `json:"state"` // of internal/health, or elsewhere
	Words   string    `json:"words"` // what that means
	Reason  string    `json:"reason,omitempty"`
	Note    string    `json:"note,omitempty"`
	Stalled string    `json:"stalled,omitempty"` // why it counts as stalled
	Since   time.Time `json:"since,omitzero"`

	Partitions int `json:"partitions,omitempty"`
}

// A Lag is how far one consumer group is behind in its topic, by what it has committed.
type Lag struct {
	Consumer string `json:"consumer"`
	Group    string `json:"group"`
	Topic    string `json:"topic"`
	// Records that have not had their effects, of all partitions together.
	Records int64 `json:"records"`
	// Seconds is the age of the oldest of them, by the broker's time; 0: there is none. Null: it is not known.
	Seconds    *float64       `json:"seconds"`
	Partitions []PartitionLag `json:"partitions"`
	// History is what the looks found that got an answer, the oldest first: every 5 s for half an hour.
	History []LagSample `json:"history"`
}

// A PartitionLag is how far a group is behind in one partition.
type PartitionLag struct {
	Partition int      `json:"partition"`
	Records   int64    `json:"records"`
	Seconds   *float64 `json:"seconds"`
	Committed int64    `json:"committed"` // the next offset; -1: nothing is committed
	End       int64    `json:"end"`

	oldest time.Time
}

// A LagSample is one look at a group.
type LagSample struct {
	At      time.Time `json:"at"`
	Records int64     `json:"records"`
	Seconds float64   `json:"seconds"`
}

// The states of a store.
const (
	Up      = "up"
	Down    = "down"
	Unset   = "unset"   // this process has no address of it
	Unknown = "unknown" // it was not asked yet
)

// A Store is how a store answers a light request.
type Store struct {
	Store string `json:"store"`
	State string `json:"state"`
	// LatencyMS is how long the last answer took, in milliseconds; null: there was none.
	LatencyMS *float64  `json:"latency_ms"`
	Since     time.Time `json:"since,omitzero"` // when it came into this state, as seen from here
	// History is the latencies of the last 10 minutes in milliseconds, the oldest first; null: no answer.
	History []*float64 `json:"history"`
}

// Letters are the dead letters by topic and reason.
type Letters struct {
	// Total is how many were counted.
	Total int64 `json:"total"`
	// Depth is how many of the newest records of each partition were counted when the process began; all later ones are.
	Depth int64 `json:"depth"`
	// Complete: the count has come to the end of the logs. Until then it grows.
	Complete bool `json:"complete"`
	// HandledKnown: Postgres says how many were dealt with.
	HandledKnown bool          `json:"handled_known"`
	Reasons      []LetterCount `json:"reasons"` // most letters of the last day first
}

// A LetterCount counts the letters of one topic and reason. A letter that was written twice counts twice.
type LetterCount struct {
	Topic   string    `json:"topic"` // the input topic, with its prefix
	Reason  string    `json:"reason"`
	Count   int64     `json:"count"`
	LastDay int64     `json:"last_day"` // of these, in the last 24 hours
	Handled int64     `json:"handled"`  // redriven, dropped or settled, by Postgres, of letters no longer in the log as well
	Newest  time.Time `json:"newest"`
	Error   string    `json:"error"`   // what the newest says
	Command string    `json:"command"` // shows the open ones
}

// A Task is a task that is active or has ended lately.
type Task struct {
	ID        string           `json:"task_id"`
	Kind      string           `json:"kind"`
	Topic     string           `json:"topic"`
	State     string           `json:"state"`
	Counts    map[string]int64 `json:"counts"`
	Message   string           `json:"message,omitempty"`
	Owner     string           `json:"owner,omitempty"`
	CreatedAt time.Time        `json:"created_at"`
	UpdatedAt time.Time        `json:"updated_at"`
	Command   string           `json:"command"` // shows it
}

// Quotas are the users who have reached a threshold of their quota on the current UTC day.
type Quotas struct {
	Date     string      `json:"date"`
	Exceeded int         `json:"exceeded"` // users at 100 % or more
	Near     int         `json:"near"`     // users who reached only thresholds below that
	Complete bool        `json:"complete"`
	Users    []QuotaUser `json:"users"` // the highest, 10 at most
}

// A QuotaUser is the highest threshold that a user has reached today.
type QuotaUser struct {
	CompanyID  string    `json:"company_id"`
	UserID     string    `json:"user_id"`
	Percentage int       `json:"threshold_percentage"`
	Usage      int64     `json:"current_usage"` // when it was reached
	Limit      int64     `json:"daily_limit"`   // then
	ReachedAt  time.Time `json:"reached_at"`
	Command    string    `json:"command"` // shows what is used now
}

// Drift is what the last scheduled verification found.
type Drift struct {
	// Interval is how often one is due; empty: none is scheduled by this process.
	Interval  string    `json:"interval,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"` // missing: there was none
	Seconds   float64   `json:"seconds"`
	Offsets   int64     `json:"offsets"` // events that were judged
	// Differences counts what differs between log and stores, by kind; empty: nothing does.
	Differences map[string]int64 `json:"differences"`
	Unproven    []string         `json:"unproven"` // what could not be judged, and why
}

// Rejections are the newest events that a business rule refused.
type Rejections struct {
	LastDay  int64            `json:"last_day"` // of the last 24 hours
	Codes    map[string]int64 `json:"codes"`    // these by code
	Depth    int64            `json:"depth"`    // how many of the newest results of each partition were read when the process began
	Complete bool             `json:"complete"`
	Newest   []Rejected       `json:"newest"` // 10 at most, the newest first
}

// A Rejected is one refused event.
type Rejected struct {
	At          time.Time `json:"at"`
	CompanyID   string    `json:"company_id"`
	RequestType string    `json:"request_type"`
	RequestID   string    `json:"request_id"`
	Code        string    `json:"code"`
	Message     string    `json:"message"`
}

// words are what the states of parts mean.
func words(s health.State) string {
	switch s {
	case health.Starting:
		return "is starting"
	case health.Ready:
		return "does its work"
	case health.Failing:
		return "waits and tries again"
	case health.Stopped:
		return "is stopped until an operator acts"
	case health.Stopping:
		return "is stopping"
	}
	return string(s)
}
