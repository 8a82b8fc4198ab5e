package tier_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"tenantflow/internal/tier"
)

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestOnlyThreeUpgradesAndThreeDowngradesExist(t *testing.T) {
	t.Parallel()
	c := tier.Default()
	at := instant(t, "2024-03-10T12:00:00Z")
	up := []string{"free>pro", "free>enterprise", "pro>enterprise", "ghost>pro", "ghost>enterprise"}
	down := []string{"pro>free", "enterprise>free", "enterprise>pro", "ghost>free", "ghost>pro", "ghost>enterprise"}
	for _, from := range []string{"free", "pro", "enterprise", "ghost"} {
		held, _ := c.Tier(from)
		cur := tier.Current{Tier: from, PriceMinor: held.PriceMinor, PeriodStart: at.AddDate(0, 0, -3), PeriodEnd: at.AddDate(0, 0, 28)}
		for _, to := range []string{"free", "pro", "enterprise", "gold", ""} {
			_, upgrade := c.Upgrade(cur, to, at)
			_, downgrade := c.Downgrade(cur, to)
			_, now := c.DowngradeNow(cur, to, at)
			for _, is := range []struct {
				err     error
				allowed bool
				code    string
			}{{upgrade, slices.Contains(up, from+">"+to), "invalid_upgrade_path"}, {downgrade, slices.Contains(down, from+">"+to), "invalid_downgrade_path"},
				{now, slices.Contains(down, from+">"+to), "invalid_downgrade_path"}} {
				code := is.code
				if to == "gold" || to == "" {
					code = "unknown_tier"
				}
				var refusal *tier.Refusal
				switch {
				case is.allowed && is.err != nil:
					t.Errorf("%s to %q is refused: %v", from, to, is.err)
				case !is.allowed && (!errors.As(is.err, &refusal) || refusal.Code != code || refusal.Message == ""):
					t.Errorf("%s to %q: %v, want %s", from, to, is.err, code)
				}
			}
		}
	}
}

func TestAChangeCostsWhatItsPeriodHasLeft(t *testing.T) {
	t.Parallel()
	march := [2]string{"2024-03-01T00:00:00Z", "2024-04-01T00:00:00Z"}
	for _, c := range []struct {
		name, from, to string
		price          int64
		period         [2]string
		at             string
		amount         int64
		lines          string
		after          [2]string
		anchor         int
	}{
		{"from free, on a day every month has", "free", "pro", 0, march, "2024-03-10T08:30:00Z", 4900, `[{"description":"charge","amount_minor":4900}]`,
			[2]string{"2024-03-10T08:30:00Z", "2024-04-10T08:30:00Z"}, 10},
		{"from free, on the last of January of a leap year", "free", "enterprise", 0, march, "2024-01-31T23:59:59Z", 49900, `[{"description":"charge","amount_minor":49900}]`,
			[2]string{"2024-01-31T23:59:59Z", "2024-02-29T23:59:59Z"}, 31},
		{"half a period", "pro", "enterprise", 4900, march, "2024-03-16T12:00:00Z", 22500,
			`[{"description":"credit","amount_minor":-2450},{"description":"charge","amount_minor":24950}]`, march, 1},
		{"one second", "pro", "enterprise", 4900, march, "2024-03-31T23:59:59Z", 0, `[{"description":"credit","amount_minor":0},{"description":"charge","amount_minor":0}]`, march, 1},
		{"before the period", "pro", "enterprise", 4900, march, "2023-01-01T00:00:00Z", 45000,
			`[{"description":"credit","amount_minor":-4900},{"description":"charge","amount_minor":49900}]`, march, 1},
		{"after the period", "pro", "enterprise", 4900, march, "2024-05-01T00:00:00Z", 0, `[{"description":"credit","amount_minor":0},{"description":"charge","amount_minor":0}]`, march, 1},
		{"a price of another time", "pro", "enterprise", 1001, [2]string{"2024-03-01T00:00:00Z", "2024-03-03T00:00:00Z"}, "2024-03-02T00:00:00Z", 24450,
			`[{"description":"credit","amount_minor":-500},{"description":"charge","amount_minor":24950}]`, [2]string{"2024-03-01T00:00:00Z", "2024-03-03T00:00:00Z"}, 1},
		{"down, half a period", "enterprise", "pro", 49900, march, "2024-03-16T14:00:00+02:00", 0,
			`[{"description":"credit","amount_minor":-24950},{"description":"charge","amount_minor":24950}]`, march, 1},
		{"down to free", "enterprise", "free", 49900, march, "2024-03-31T10:00:00Z", 0, `[]`, [2]string{"2024-03-31T10:00:00Z", "2024-04-30T10:00:00Z"}, 31},
	} {
		cur := tier.Current{Tier: c.from, PriceMinor: c.price, PeriodStart: instant(t, c.period[0]), PeriodEnd: instant(t, c.period[1])}
		change := tier.Default().Upgrade
		if c.from == "enterprise" {
			change = tier.Default().DowngradeNow
		}
		got, err := change(cur, c.to, instant(t, c.at))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		text, err := json.Marshal(got.Adjustment)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(map[string]any{"amount_minor": c.amount, "currency": "USD", "period_start": c.after[0], "period_end": c.after[1], "lines": json.RawMessage(c.lines)})
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, text, want) || got.AnchorDay != c.anchor || got.From != c.from || got.To.Name != c.to {
			t.Errorf("%s: %s to %s, anchor %d\n%s\nwant\n%s", c.name, got.From, got.To.Name, got.AnchorDay, text, want)
		}
		var back tier.Adjustment
		if err := json.Unmarshal(text, &back); err != nil || back.AmountMinor != c.amount || !back.PeriodEnd.Equal(got.Adjustment.PeriodEnd) || len(back.Lines) != len(got.Adjustment.Lines) {
			t.Errorf("%s: comes back as %+v, %v", c.name, back, err)
		}
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var canonical [2]string
	for i, text := range [][]byte{a, b} {
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		back, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		canonical[i] = string(back)
	}
	return canonical[0] == canonical[1]
}

func TestAPeriodEndsOnTheAnchorDayOrOnTheLastOfTheMonth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		start  string
		anchor int
		want   string
	}{
		{"2023-01-31T01:02:03Z", 31, "2023-02-28T01:02:03Z"}, {"2023-02-28T01:02:03Z", 31, "2023-03-31T01:02:03Z"}, {"2024-01-30T00:00:00Z", 0, "2024-02-29T00:00:00Z"},
		{"2024-02-29T00:00:00Z", 30, "2024-03-30T00:00:00Z"}, {"2024-02-29T00:00:00Z", 0, "2024-03-29T00:00:00Z"}, {"2023-12-31T23:59:59.999999Z", 0, "2024-01-31T23:59:59.999999Z"},
		{"2100-01-29T00:00:00Z", 29, "2100-02-28T00:00:00Z"}, {"2024-03-31T01:30:00+02:00", 0, "2024-04-30T23:30:00Z"}, {"2024-04-01T00:30:00+02:00", 0, "2024-04-30T22:30:00Z"},
	} {
		if got := tier.NextPeriodEnd(instant(t, c.start), c.anchor); !got.Equal(instant(t, c.want)) || got.Location() != time.UTC {
			t.Errorf("from %s on day %d: %s, want %s", c.start, c.anchor, got, c.want)
		}
	}
}

func TestRestrictionsAreOnlyWhatGotSmaller(t *testing.T) {
	t.Parallel()
	limits := func(name string) tier.Limits {
		found, _ := tier.Default().Tier(name)
		return found.Limits
	}
	for _, c := range []struct {
		from, to  string
		suspended []string
		want      string
	}{
		{"free", "enterprise", nil, `{}`}, {"pro", "enterprise", nil, `{}`}, {"pro", "pro", nil, `{}`},
		{"enterprise", "pro", nil, `{"daily_api_calls": {"old": "unlimited", "new": 50000}, "storage_mb": {"old": "unlimited", "new": 10240}, "retention_days": {"old": 1095, "new": 365},
			"features_enabled": {"old": ["all_features"], "new": ["basic_trading", "advanced_analytics", "email_notifications", "sms_notifications", "api_access"]}}`},
		{"pro", "free", []string{"u2", "u3"}, `{"daily_api_calls": {"old": 50000, "new": 1000}, "storage_mb": {"old": 10240, "new": 100}, "retention_days": {"old": 365, "new": 30},
			"features_enabled": {"old": ["basic_trading", "advanced_analytics", "email_notifications", "sms_notifications", "api_access"], "new": ["basic_trading", "email_notifications"]},
			"users_suspended": {"old": [], "new": ["u2", "u3"]}}`},
	} {
		text, err := json.Marshal(tier.Restrictions(limits(c.from), limits(c.to), c.suspended))
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, text, []byte(c.want)) {
			t.Errorf("%s to %s: %s", c.from, c.to, text)
		}
	}
}
