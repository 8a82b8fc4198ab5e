package tier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What a catalogue may say at most. The numbers are far beyond what makes sense, and well within what the stores hold.
const (
	maxPrice     = 1_000_000_000_000
	maxLimit     = Limit(999_999_999_999_999_999)
	maxRetention = 36_500
	maxTimeout   = time.Hour
	maxBackups   = 10_000
)

var namePattern = regexp.MustCompile(`^[a-z0-9_-]{1,20}$`)

// parse reads a catalogue. Every field is read by itself, so that one that is wrong does not hide the others.
func parse(text []byte) (*Catalogue, error) {
	var file map[string]json.RawMessage
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if bytes.Contains(text, []byte(`\u0000`)) {
		return nil, errors.New(`it contains \u0000, which Postgres can't store`)
	}
	var problems []error
	var tiers []map[string]json.RawMessage
	for _, name := range slices.Sorted(maps.Keys(file)) {
		if name != "tiers" {
			problems = append(problems, fmt.Errorf("%s: not a field of a catalogue", name))
		}
	}
	if err := json.Unmarshal(file["tiers"], &tiers); err != nil {
		return nil, errors.Join(append(problems, errors.New("tiers: it must be there, a list of objects"))...)
	}
	c := &Catalogue{}
	seen := map[string]bool{}
	for i, fields := range tiers {
		t, wrong := parseTier(fields)
		place := fmt.Sprintf("tier %q", t.Name)
		switch {
		case t.Name == "":
			place = fmt.Sprintf("tier number %d", i+1)
		case seen[t.Name]:
			wrong = append(wrong, "name: there is another tier of this name")
		}
		seen[t.Name] = true
		for _, w := range wrong {
			problems = append(problems, fmt.Errorf("%s: %s", place, w))
		}
		c.tiers = append(c.tiers, t)
	}
	if !seen[Free] {
		problems = append(problems, fmt.Errorf("tiers: no tier is called %q; a company without a subscription has it", Free))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return c, nil
}

// parseTier reads one tier and returns what is wrong with it.
func parseTier(fields map[string]json.RawMessage) (t Tier, wrong []string) {
	var timeout, target string
	var retention int // a number in every tier
	list := []struct {
		name string
		to   any
	}{
		{"name", &t.Name}, {"price_minor", &t.PriceMinor},
		{"daily_api_calls", &t.DailyAPICalls}, {"storage_mb", &t.StorageMB}, {"retention_days", &retention}, {"max_users", &t.MaxUsers},
		{"daily_data_points", &t.DailyDataPoints}, {"thresholds", &t.Thresholds},
		{"features_enabled", &t.Features}, {"benefits", &t.Benefits}, {"support_level", &t.SupportLevel}, {"backup", &t.Backup},
		{"statement_timeout", &timeout}, {"p95_target", &target},
	}
	ok := map[string]bool{} // what could be read; only that is judged
	say := func(name, format string, args ...any) {
		wrong = append(wrong, name+": "+fmt.Sprintf(format, args...))
	}
	want := func(name string, holds bool, format string, args ...any) {
		if ok[name] && !holds {
			say(name, format, args...)
		}
	}
	for _, field := range list {
		text, there := fields[field.name]
		delete(fields, field.name)
		switch {
		case there && string(text) != "null":
			switch err := strictly(text, field.to); {
			case err == nil:
				ok[field.name] = true
			case field.name == "thresholds":
				say(field.name, "it must be a list of whole numbers from 1 to %d, such as [80, 100]: %s", MaxThreshold, plain(err))
			default:
				say(field.name, "%s", plain(err))
			}
		case !slices.Contains([]string{"benefits", "daily_data_points", "thresholds"}, field.name):
			say(field.name, "it is missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		say(name, "not a field of a tier")
	}

	t.RetentionDays = Limit(retention)
	want("name", namePattern.MatchString(t.Name), "%q is not 1 to 20 of a-z, 0-9, _ and -", t.Name)
	want("price_minor", 0 <= t.PriceMinor && t.PriceMinor <= maxPrice, "%d is not between 0 and %d", t.PriceMinor, int64(maxPrice))
	want("price_minor", t.Name != Free || t.PriceMinor == 0, "the free tier can't cost %d", t.PriceMinor)
	for _, l := range []struct {
		name  string
		limit Limit
	}{{"daily_api_calls", t.DailyAPICalls}, {"storage_mb", t.StorageMB}, {"max_users", t.MaxUsers}, {"daily_data_points", t.DataPoints()}} {
		want(l.name, l.limit <= maxLimit, `%s is more than %s; write "unlimited"`, l.limit, maxLimit)
	}
	if !ok["thresholds"] {
		t.Thresholds = defaultThresholds(t.DailyAPICalls)
	}
	for _, w := range wrongThresholds(t.Thresholds) {
		say("thresholds", "%s", w)
	}
	t.Thresholds = sortedThresholds(t.Thresholds)
	want("max_users", t.MaxUsers != 0, "a company has at least one user")
	want("retention_days", 1 <= t.RetentionDays && t.RetentionDays <= maxRetention, "%d is not between 1 and %d", retention, maxRetention)
	distinct := map[string]bool{}
	for _, feature := range t.Features {
		want("features_enabled", feature != "" && !distinct[feature], "%q is empty or there twice", feature)
		distinct[feature] = true
	}
	want("support_level", t.SupportLevel != "", "it is empty")
	want("backup", slices.Contains([]string{"hourly", "daily", "weekly"}, t.Backup.Every), "every %q is none of hourly, daily, weekly", t.Backup.Every)
	want("backup", 1 <= t.Backup.Keep && t.Backup.Keep <= maxBackups, "keep %d is not between 1 and %d", t.Backup.Keep, maxBackups)
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"statement_timeout", timeout, &t.StatementTimeout}, {"p95_target", target, &t.P95Target}} {
		if !ok[d.name] {
			continue
		}
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			say(d.name, "%q is not a duration like 15s or 500ms", d.text)
			ok[d.name] = false
		}
		want(d.name, time.Millisecond <= *d.to && *d.to <= maxTimeout, "%s is not between 1ms and %s", d.text, maxTimeout)
	}
	want("p95_target", !ok["statement_timeout"] || t.P95Target <= t.StatementTimeout, "%s is longer than the statement_timeout, %s", target, timeout)
	if t.Benefits == nil {
		t.Benefits = map[string]any{}
	}
	return t, wrong
}

// strictly reads a value, in which no field may be unknown.
func strictly(text []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(to)
}

// plain says what is wrong with a value without naming the types of this program.
func plain(err error) string {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		kind := map[string]string{"string": "a string", "int": "a whole number", "int64": "a whole number", "[]string": "a list of strings", "[]int": "a list of whole numbers"}[mismatch.Type.String()]
		if kind == "" {
			kind = "an object"
		}
		return fmt.Sprintf("it must be %s, not %s", kind, mismatch.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}
