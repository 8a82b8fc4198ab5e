package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in memory. As text it is a whole number of bytes, or one with a unit: KiB, MiB, GiB (powers of
// 1024) or KB, MB, GB (powers of 1000).
type Bytes int64

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, known := int64(1), true
	switch strings.ToLower(strings.TrimSpace(s[len(digits):])) {
	case "", "b":
	case "kib":
		unit = 1 << 10
	case "mib":
		unit = 1 << 20
	case "gib":
		unit = 1 << 30
	case "kb":
		unit = 1e3
	case "mb":
		unit = 1e6
	case "gb":
		unit = 1e9
	default:
		known = false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size", s)
	}
	*b = Bytes(n * unit)
	return nil
}

// String writes a size in the largest unit of 1024 that gives a whole number.
func (b Bytes) String() string {
	for _, u := range []struct {
		size Bytes
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if b >= u.size && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// An OffsetPolicy says what happens to a partition whose next offset is not in the topic any more.
type OffsetPolicy string

// The policies for an offset out of range.
const (
	StopPartition OffsetPolicy = "stop"     // the partition stops with an error
	FromEarliest  OffsetPolicy = "earliest" // it goes on at the first offset there is
	FromLatest    OffsetPolicy = "latest"   // it goes on at the end
)

// UnmarshalText reads a policy.
func (p *OffsetPolicy) UnmarshalText(text []byte) error {
	return oneOf(p, text, StopPartition, FromEarliest, FromLatest)
}

// A WhileRebuilding says what becomes of reservations while counters are being rebuilt.
type WhileRebuilding string

// What becomes of reservations.
const (
	RefuseReservations WhileRebuilding = "refuse" // with a 503
	GrantReservations  WhileRebuilding = "grant"  // by counters that may be short
)

// UnmarshalText reads it.
func (w *WhileRebuilding) UnmarshalText(text []byte) error {
	return oneOf(w, text, RefuseReservations, GrantReservations)
}

// A LogFormat is the form of a log line.
type LogFormat string

// The log formats.
const (
	LogAuto LogFormat = "auto" // text on a terminal, JSON otherwise
	LogJSON LogFormat = "json"
	LogText LogFormat = "text"
)

// UnmarshalText reads a format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	return oneOf(f, text, LogAuto, LogJSON, LogText)
}

func oneOf[T ~string](to *T, text []byte, values ...T) error {
	for _, v := range values {
		if T(text) == v {
			*to = v
			return nil
		}
	}
	return fmt.Errorf("%q is none of %v", text, values)
}
