package clickhouse

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An Intent says what is about to be inserted: the rows of [From, To) of a partition. It is committed to Kafka as
// the metadata of the offset From before anything is sent, so the partition's next owner knows what may have
// reached the table and can settle it.
type Intent struct {
	Topic     string
	Partition int
	From, To  int64 // offsets, To exclusive
	Parts     []Part

	// InsertBy is the time, by ClickHouse's clock and in whole milliseconds, until which the server accepts the
	// rows. The rows carry it, so it also marks which rows are this intent's.
	InsertBy time.Time

	// ResendBy is the same for the newest resend made to settle the intent; zero when there was none.
	ResendBy time.Time

	// oldToken says that the intent was committed by a version whose tokens did not have the deadline in them. To
	// complete its views, its rows must be sent with the token they were first sent with.
	oldToken bool
}

// A Part is what an intent inserts into one month partition as one block.
type Part struct {
	Month int    // 202611 is November 2026
	Hash  uint64 // of the identities of its rows, in the order of their offsets
}

// Deadline is the time after which ClickHouse refuses everything that was sent for the intent.
func (in *Intent) Deadline() time.Time {
	if in.ResendBy.After(in.InsertBy) {
		return in.ResendBy
	}
	return in.InsertBy
}

// Range names the intent in logs and errors.
func (in *Intent) Range() string {
	return fmt.Sprintf("%s/%d [%d, %d)", in.Topic, in.Partition, in.From, in.To)
}

// comment marks the intent's queries in system.processes and in the query log: it is the log_comment of part p, or,
// without one, what the log_comments of all parts begin with.
func (in *Intent) comment() string {
	return fmt.Sprintf("tenantflow:usage_tracking:%s:%d:%d-%d:", in.Topic, in.Partition, in.From, in.To)
}

// token is the deduplication token of part p. ClickHouse silently drops a block whose token it has seen, so the token
// names exactly one attempt to insert exactly these rows:
//
//   - The hash of the identities is in it, because a known token drops a block whatever the block holds.
//   - The deadline is in it, because a known token does not prove that the rows are there: ClickHouse writes the token to
//     its deduplication log before it renames the part into place, and a kill or a failed rename in between leaves the
//     token without the rows. So a new attempt, which has a new deadline, has a new token. A resend that completes
//     the views of rows that did land keeps the token they landed with.
func (in *Intent) token(p Part) string {
	if in.oldToken {
		return fmt.Sprintf("%s%d:%016x", in.comment(), p.Month, p.Hash)
	}
	return fmt.Sprintf("%s%d:%016x:%d", in.comment(), p.Month, p.Hash, in.InsertBy.UnixMilli())
}

// The version begins the metadata, so that an older process refuses what it can't read instead of misreading it.
const (
	intentVersion    = "tf2"
	intentVersionOld = "tf1" // the same fields; its tokens have no deadline
)

// Metadata is the form in which an intent travels in a committed offset: version, To, InsertBy, ResendBy and the
// parts, 25 bytes each. Months lie within the two years of the table, so it stays far below Kafka's 4096 bytes.
func (in *Intent) Metadata() string {
	var s strings.Builder
	version, resend := intentVersion, int64(0)
	if in.oldToken {
		version = intentVersionOld
	}
	if !in.ResendBy.IsZero() {
		resend = in.ResendBy.UnixMilli()
	}
	fmt.Fprintf(&s, "%s %d %d %d", version, in.To, in.InsertBy.UnixMilli(), resend)
	for _, p := range in.Parts {
		fmt.Fprintf(&s, " %d:%016x", p.Month, p.Hash)
	}
	return s.String()
}

// ParseIntent reads the metadata of a committed offset. Empty metadata is no intent: nil without an error.
func ParseIntent(topic string, partition int, offset int64, metadata string) (*Intent, error) {
	if metadata == "" {
		return nil, nil //nolint:nilnil // nothing pending is the ordinary case, not an error
	}
	bad := func(what string) error {
		return fmt.Errorf("read pending insert of %s/%d at offset %d: %s in %q", topic, partition, offset, what, metadata)
	}
	fields := strings.Fields(metadata)
	version, _, _ := strings.Cut(metadata, " ")
	if version != intentVersion && version != intentVersionOld {
		return nil, bad("unknown version " + strconv.Quote(version))
	}
	if len(fields) < 5 {
		return nil, bad("too few fields")
	}
	var numbers [3]int64
	for i := range numbers {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return nil, bad("bad number " + strconv.Quote(fields[i+1]))
		}
		numbers[i] = n
	}
	in := &Intent{Topic: topic, Partition: partition, From: offset, To: numbers[0], InsertBy: time.UnixMilli(numbers[1]), oldToken: version == intentVersionOld}
	if numbers[2] != 0 {
		in.ResendBy = time.UnixMilli(numbers[2])
	}
	if in.To <= in.From {
		return nil, bad("empty range")
	}
	for _, f := range fields[4:] {
		month, hash, ok := strings.Cut(f, ":")
		m, err := strconv.Atoi(month)
		if !ok || err != nil {
			return nil, bad("bad part " + strconv.Quote(f))
		}
		h, err := strconv.ParseUint(hash, 16, 64)
		if err != nil {
			return nil, bad("bad part " + strconv.Quote(f))
		}
		in.Parts = append(in.Parts, Part{Month: m, Hash: h})
	}
	return in, nil
}
