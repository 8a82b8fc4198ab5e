package dragonfly

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// epochField is the field of a progress hash with its epoch. A partition's is p and its number.
const epochField = "epoch"

func partitionField(partition int) string { return "p" + strconv.Itoa(partition) }

// Progress is how far a partition is counted.
type Progress struct {
	// Epoch is the beginning that the counters belong to; 0: there are none.
	Epoch int64

	// New says that nothing is known of the partition: its events of the day are to be counted anew.
	New bool

	// Everything before Done is counted, and nothing from Pending on. What lies between may be counted in part, since
	// At. Without such a range Pending is equal to Done.
	Done, Pending int64
	At            time.Time

	// Until is the offset at which all is counted again that was lost; 0 or not beyond Done: nothing is missing.
	Until int64

	// Floor is the first UTC day to count. Counters of earlier days were lost and would be counted in part only. Zero:
	// any day.
	Floor time.Time

	text string // as it stands there
}

const newPartition = "new"

// Clean says that no range is half counted.
func (p Progress) Clean() bool { return p.Pending == p.Done }

func (p Progress) String() string {
	if p.New {
		return newPartition
	}
	floor := "-"
	if !p.Floor.IsZero() {
		floor = p.Floor.UTC().Format(dayLayout)
	}
	return fmt.Sprintf("%d %d %d %d %s", p.Done, p.Pending, p.At.UnixMilli(), p.Until, floor)
}

// parseProgress reads what String wrote. Nothing means New.
func parseProgress(text string) (Progress, error) {
	p := Progress{text: text}
	if text == newPartition || text == "" {
		p.New = true
		return p, nil
	}
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return p, fmt.Errorf("read progress %q: %d fields instead of 5", text, len(fields))
	}
	var at int64
	var err error
	for i, to := range []*int64{&p.Done, &p.Pending, &at, &p.Until} {
		var one error
		*to, one = strconv.ParseInt(fields[i], 10, 64)
		err = errors.Join(err, one)
	}
	p.At = time.UnixMilli(at)
	if fields[4] != "-" {
		var one error
		p.Floor, one = time.Parse(dayLayout, fields[4])
		err = errors.Join(err, one)
	}
	if err == nil && (p.Done < 0 || p.Pending < p.Done) {
		err = errors.New("its offsets make no sense")
	}
	if err != nil {
		return p, fmt.Errorf("read progress %q: %w", text, err)
	}
	return p, nil
}
