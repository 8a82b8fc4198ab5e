package events

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// stockDateTime is the date-time format of the validator as it comes.
func stockDateTime(t testing.TB) func(string) bool {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("t", map[string]any{"format": "date-time"}); err != nil {
		t.Fatal(err)
	}
	schema := c.MustCompile("t")
	return func(s string) bool { return schema.Validate(s) == nil }
}

func checkTime(t *testing.T, stock func(string) bool, s string) {
	t.Helper()
	got, ok := parseTime([]byte(s))
	want, err := time.Parse(time.RFC3339Nano, s)
	if ok && !stock(s) {
		t.Errorf("%q is taken, but not by the schema's date-time as it comes", s)
	}
	switch {
	case ok && err == nil:
		if !got.Equal(want) {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
		sec, nsec, _ := parseRFC3339([]byte(s))
		if ms := sec*1000 + int64(nsec/1_000_000); ms != want.UnixMilli() {
			t.Errorf("%q is %d ms, want %d", s, ms, want.UnixMilli())
		}
	case ok:
		if upper, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s)); err != nil || !upper.Equal(got) {
			t.Errorf("%q is taken, and time.Parse takes it in upper case neither: %v", s, err)
		}
	case err == nil && stock(s):
		t.Errorf("%q is refused, but time.Parse and the schema's date-time take it", s)
	}
}

func TestTimestampsAreThoseGoAndJSONSchemaAgreeOn(t *testing.T) {
	t.Parallel()
	stock := stockDateTime(t)
	for _, odd := range oddValues() {
		checkTime(t, stock, strings.Trim(odd, `"`))
	}
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "0123456789-:.,TZtz+ "
	layouts := []string{time.RFC3339, time.RFC3339Nano, "2006-01-02T15:04:05.000Z07:00", "2006-01-02T15:04:05.0000000000000Z07:00"}
	for range 50_000 {
		zone := time.FixedZone("", (random.IntN(2*24*60)-24*60)*60)
		at := time.Unix(random.Int64N(400*31_557_600)-60*31_557_600, random.Int64N(1e9)).In(zone)
		s := at.Format(layouts[random.IntN(len(layouts))])
		checkTime(t, stock, s)
		b := []byte(s) // with one character changed
		b[random.IntN(len(b))] = alphabet[random.IntN(len(alphabet))]
		checkTime(t, stock, string(b))
	}
}

func TestEveryDayHasItsPlaceAndItsMonth(t *testing.T) {
	t.Parallel()
	for day := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 10000; day = day.AddDate(0, 0, 1) {
		if day.Day() == 2 && (day.Year() < 1890 || day.Year() > 2310) {
			day = day.AddDate(0, 0, 25) // far away, the ends of the months will do
		}
		if got := daysSinceEpoch(uint32(day.Year()), uint32(day.Month()), uint32(day.Day())); got != day.Unix()/86400 {
			t.Fatalf("%v is day %d, want %d", day, got, day.Unix()/86400)
		}
		for _, ms := range []int64{day.UnixMilli(), day.UnixMilli() + 86_399_999} {
			if y, m := yearMonth(ms); y != day.Year() || m != int(day.Month()) {
				t.Fatalf("%v is in month %d-%d", day, y, m)
			}
		}
		next := day.AddDate(0, 0, 1)
		if last := next.Month() != day.Month(); last != (uint32(day.Day()) == daysIn(uint32(day.Year()), uint32(day.Month()))) {
			t.Fatalf("%v has the wrong number of days", day)
		}
	}
}

func TestTimestampsBeyondTheLimitsAreRefused(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{FutureTolerance: time.Minute, MaxAge: time.Hour})
	for _, c := range []struct {
		offset time.Duration
		want   Reason
	}{
		{0, ""}, {time.Minute, ""}, {time.Minute + time.Millisecond, TimestampInFuture}, {-time.Hour, ""},
		{-time.Hour - time.Millisecond, TimestampTooOld}, {150 * 365 * 24 * time.Hour, TimestampInFuture},
	} {
		stamp := testNow.Add(c.offset).Format("2006-01-02T15:04:05.000Z07:00")
		data := strings.Replace(usageJSON, "2026-07-31T13:30:00.123456+02:00", stamp, 1)
		if err := d.Decode(binaryRecord(data), testNow, new(Usage)); reasonOf(err) != c.want {
			t.Errorf("%s: %v, want %q", stamp, err, c.want)
		}
		// Without a timestamp it is the event's time that counts.
		data = strings.Replace(usageJSON, `"timestamp":"2026-07-31T13:30:00.123456+02:00",`, "", 1)
		r := withHeaders(binaryRecord(data), replaceHeader("ce_time", stamp))
		if err := d.Decode(r, testNow, new(Usage)); reasonOf(err) != c.want {
			t.Errorf("time %s: %v, want %q", stamp, err, c.want)
		}
	}
	// What is wrong with the data is said before what is wrong with the time.
	invalid := strings.Replace(usageJSON, "2026-07-31T13:30:00.123456+02:00", "1999-01-01T00:00:00Z", 1)
	invalid = strings.Replace(invalid, "120", "-1", 1)
	if err := d.Decode(binaryRecord(invalid), testNow, new(Usage)); reasonOf(err) != InvalidData {
		t.Errorf("%v", err)
	}
}

func TestDefaultLimitsAreAnHourAndTwoYears(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	for offset, want := range map[time.Duration]Reason{
		time.Hour: "", time.Hour + time.Second: TimestampInFuture,
		-730 * 24 * time.Hour: "", -730*24*time.Hour - time.Second: TimestampTooOld,
	} {
		data := strings.Replace(usageJSON, "2026-07-31T13:30:00.123456+02:00", testNow.Add(offset).Format(time.RFC3339), 1)
		if err := d.Decode(binaryRecord(data), testNow, new(Usage)); reasonOf(err) != want {
			t.Errorf("%v: %v, want %q", offset, err, want)
		}
	}
}

func TestTheDefaultBillingPeriodIsTheUTCMonthOfTheTimestamp(t *testing.T) {
	t.Parallel()
	d := NewUsageDecoder(UsageLimits{})
	for stamp, want := range map[string]string{
		"2026-08-01T01:59:59.999+02:00": "2026-07", "2026-08-01T02:00:00+02:00": "2026-08", "2025-12-31T23:30:00-01:00": "2026-01",
	} {
		data := strings.Replace(usageJSON, "2026-07-31T13:30:00.123456+02:00", stamp, 1)
		data = strings.Replace(data, `"billing_period":"2026-07",`, "", 1)
		var u Usage
		if err := d.Decode(binaryRecord(data), testNow.AddDate(0, 0, 1), &u); err != nil || string(u.BillingPeriod) != want {
			t.Errorf("%s: %q, %v, want %s", stamp, u.BillingPeriod, err, want)
		}
	}
}

func FuzzTime(f *testing.F) {
	for _, odd := range oddValues() {
		f.Add(strings.Trim(odd, `"`))
	}
	stock := stockDateTime(f)
	f.Fuzz(func(t *testing.T, s string) { checkTime(t, stock, s) })
}
