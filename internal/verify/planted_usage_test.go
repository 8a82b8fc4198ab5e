package verify_test

import (
	"fmt"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/verify"
	"tenantflow/sinks/dragonfly"
)

// wrongTotals are the three totals of the day of a company's row.
func wrongTotals(company string) []expected {
	return []expected{{verify.WrongTotal, "usage_analytics_hourly " + company + "|"}, {verify.WrongTotal, "usage_daily " + company + "|"},
		{verify.WrongTotal, "billing_monthly " + company + "|"}}
}

// plantsOfUsage are corruptions of rows, totals, dead letters and counters.
func plantsOfUsage() []plant {
	change := func(t *testing.T, e *planted, statement, company string) (partition int, offset int64) {
		t.Helper()
		partition, offset = e.row(t, company)
		e.exec(t, fmt.Sprintf("ALTER TABLE usage_tracking %s WHERE _partition = %d AND _offset = %d SETTINGS mutations_sync = 2", statement, partition, offset))
		return partition, offset
	}
	short := func(t *testing.T, e *planted, table, columns, values string) string {
		t.Helper()
		c := e.usageCompany(t)
		e.exec(t, "INSERT INTO "+table+" SELECT "+columns+", "+values+" FROM "+table+" WHERE company_id = '"+c+"' LIMIT 1")
		return c
	}
	counter := func(t *testing.T, e *planted, change func(key string) error) []expected {
		t.Helper()
		c := e.usageCompany(t)
		user := e.texts(t, "SELECT user_id FROM usage_tracking WHERE company_id = '"+c+"' ORDER BY timestamp DESC LIMIT 1")[0]
		at := e.texts(t, "SELECT toString(toDate(max(timestamp))) FROM usage_tracking WHERE user_id = '"+user+"'")[0]
		day, err := time.Parse(time.DateOnly, at)
		if err != nil {
			t.Fatal(err)
		}
		key := dragonfly.QuotaKey(user, day)
		if err := change(key); err != nil {
			t.Fatal(err)
		}
		return []expected{{verify.WrongCounter, key}}
	}
	return []plant{
		{"a row deleted", func(t *testing.T, e *planted) []expected {
			t.Helper()
			c := e.usageCompany(t)
			p, o := change(t, e, "DELETE", c)
			return append(wrongTotals(c), expected{verify.Missing, e.place(p, o)})
		}, false},
		{"a row doubled", func(t *testing.T, e *planted) []expected {
			t.Helper()
			p, o := e.row(t, e.usageCompany(t))
			e.copyRow(t, p, o, "")
			return []expected{{verify.DoubledRow, e.place(p, o)}}
		}, true},
		{"a row changed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			p, o := change(t, e, "UPDATE api_endpoint = '/another'", e.usageCompany(t))
			return []expected{{verify.AlteredRow, e.place(p, o)}}
		}, false},
		{"the sign of a row turned", func(t *testing.T, e *planted) []expected {
			t.Helper()
			c := e.usageCompany(t)
			p, o := change(t, e, "UPDATE sign = -1", c)
			return append(wrongTotals(c), expected{verify.AlteredRow, e.place(p, o)}, expected{verify.VoidWithoutUsage, e.place(p, o)})
		}, false},
		{"a row put in", func(t *testing.T, e *planted) []expected {
			t.Helper()
			p, o := e.row(t, e.usageCompany(t))
			e.copyRow(t, p, o, "'stranger' AS event_id")
			return []expected{{verify.ForeignRow, e.place(p, o)}}
		}, false},
		{"an hourly total off by one", func(t *testing.T, e *planted) []expected {
			t.Helper()
			c := short(t, e, "usage_hourly_store", "company_id, subscription_tier, service_name, hour", "-1, 0, '0', '0'")
			return []expected{{verify.WrongTotal, "usage_analytics_hourly " + c + "|"}}
		}, true},
		{"a daily total off by one", func(t *testing.T, e *planted) []expected {
			t.Helper()
			c := short(t, e, "usage_daily_store", "company_id, user_id, subscription_tier, day", "0, -1, '0', toDateTime64(0, 3, 'UTC')")
			return []expected{{verify.WrongTotal, "usage_daily " + c + "|"}}
		}, true},
		{"a monthly total off by a millionth", func(t *testing.T, e *planted) []expected {
			t.Helper()
			c := short(t, e, "billing_monthly_store", "company_id, user_id, subscription_tier, billing_period", "0, 0, '-0.000001', toDateTime64(0, 3, 'UTC')")
			return []expected{{verify.WrongTotal, "billing_monthly " + c + "|"}}
		}, true},
		{"a dead letter removed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			var place string
			e.withoutLetters(t, func(d *events.DeadLetter) bool {
				if place != "" {
					return false
				}
				place = e.place(d.Partition, d.Offset)
				return true
			})
			return []expected{{verify.Missing, place}}
		}, false},
		{"a counter off by one", func(t *testing.T, e *planted) []expected {
			t.Helper()
			return counter(t, e, func(key string) error { return e.counted.client.HIncrBy(t.Context(), key, "api_calls", 1).Err() })
		}, true},
		{"a counter removed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			return counter(t, e, func(key string) error { return e.counted.client.Del(t.Context(), key).Err() })
		}, true},
	}
}
