package verify_test

import (
	"testing"

	"github.com/google/uuid"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/verify"
)

// rowPlant is a corruption of one row of Postgres. The query gives a company and the row; the statement has the row, or the company and the
// row, as arguments.
func rowPlant(name string, kind verify.Kind, query, statement string, mends bool) plant {
	return plant{name, func(t *testing.T, e *planted) []expected {
		t.Helper()
		_, what := e.pick(t, query)
		e.y.exec(t, statement, what)
		return []expected{{kind, what}}
	}, mends}
}

// companyPlant is one of a row that is named by its company.
func companyPlant(name string, kind verify.Kind, query, statement string, mends bool) plant {
	return plant{name, func(t *testing.T, e *planted) []expected {
		t.Helper()
		company, what := e.pick(t, query)
		if what == "" {
			e.y.exec(t, statement, company)
		} else {
			e.y.exec(t, statement, company, what)
		}
		return []expected{{kind, " " + company}}
	}, mends}
}

// plantsOfTenants are corruptions of the inbox, of results, audit logs, books, users and configurations.
func plantsOfTenants() []plant {
	const (
		chain    = "SELECT company_id, '' FROM audit_log GROUP BY company_id HAVING max(seq) >= 4"
		upgrades = `SELECT company_id, transaction_id FROM billing_transactions AS t WHERE transaction_type = 'upgrade' AND amount_minor > 0
			AND NOT EXISTS (SELECT FROM payments AS p WHERE p.transaction_id = t.transaction_id)`
		received = "SELECT company_id, payment_id FROM payments WHERE status = 'received'"
		calm     = "SELECT company_id, '' FROM subscriptions WHERE status = 'active'"
	)
	plants := []plant{
		companyPlant("an audit record changed", verify.BrokenAudit, chain, "UPDATE audit_log SET details = details || ' ' WHERE seq = 3 AND company_id = $1", false),
		companyPlant("an audit record removed", verify.BrokenAudit, chain, "DELETE FROM audit_log WHERE seq = 2 AND company_id = $1", false),
		companyPlant("an audit record put in", verify.BrokenAudit, chain, `INSERT INTO audit_log SELECT company_id, seq + 1, event_source, 'forged', event_type, action, occurred_at,
			details, hash, repeat('0', 64) FROM audit_log WHERE company_id = $1 ORDER BY seq DESC LIMIT 1`, false),
		companyPlant("the tail of an audit log cut", verify.BrokenAudit, chain, "DELETE FROM audit_log WHERE company_id = $1 AND seq = (SELECT max(seq) FROM audit_log WHERE company_id = $1)", false),
		{"a charge doubled", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, id := e.pick(t, upgrades)
			e.y.exec(t, `INSERT INTO billing_transactions SELECT 'once-more', company_id, transaction_type, old_tier, new_tier, amount_minor, currency, lines,
				period_start, period_end, payment_data, created_at FROM billing_transactions WHERE transaction_id = $1`, id)
			return []expected{{verify.ChargedTwice, "once-more"}}
		}, false},
		rowPlant("a transaction removed", verify.WrongTransaction, upgrades, "DELETE FROM billing_transactions WHERE transaction_id = $1", false),
		rowPlant("an amount changed", verify.WrongTransaction, upgrades, "UPDATE billing_transactions SET amount_minor = amount_minor - 1 WHERE transaction_id = $1", false),
		rowPlant("an amount and its lines changed", verify.WrongTransaction, upgrades,
			`UPDATE billing_transactions SET amount_minor = 1, lines = '[{"description": "charge", "amount_minor": 1}]' WHERE transaction_id = $1`, false),
		rowPlant("a payment changed", verify.WrongPayment, received, "UPDATE payments SET amount_minor = amount_minor + 1 WHERE payment_id = $1", false),
		rowPlant("a payment removed", verify.WrongPayment, received, "DELETE FROM payments WHERE payment_id = $1", false),
		companyPlant("a period made longer", verify.WrongSubscription, calm, "UPDATE subscriptions SET period_end = period_end + interval '1 day' WHERE company_id = $1", false),
		{"a subscription removed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			company, _ := e.pick(t, calm)
			e.y.exec(t, "DELETE FROM subscriptions WHERE company_id = $1", company)
			return []expected{{verify.NoSubscription, " " + company}}
		}, false},
		companyPlant("a line of the history removed", verify.WrongHistory, "SELECT company_id, min(id)::text FROM subscription_events GROUP BY 1 HAVING count(*) > 3",
			"DELETE FROM subscription_events WHERE company_id = $1 AND id::text = $2", false),
		companyPlant("a line of the history changed", verify.WrongHistory, "SELECT company_id, min(id)::text FROM subscription_events GROUP BY 1 HAVING count(*) > 3",
			"UPDATE subscription_events SET event_time = event_time + interval '1 second' WHERE company_id = $1 AND id::text = $2", false),
		rowPlant("an email changed", verify.WrongUser, "SELECT company_id, user_id FROM user_directory", "UPDATE user_directory SET email = 'other@x' WHERE user_id = $1", false),
		{"a user's limits changed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			company, user := e.pick(t, "SELECT company_id, user_id FROM user_directory")
			e.y.exec(t, `UPDATE "tenant_`+company+`".users SET subscription_limits = subscription_limits || '{"daily_api_calls": 1}' WHERE user_id = $1`, user)
			return []expected{{verify.WrongLimits, user}}
		}, false},
		companyPlant("a stale configuration", verify.StaleConfig, "SELECT company_id, '' FROM company_config",
			`UPDATE company_config SET config = config || '{"theme": "planted"}' WHERE company_id = $1`, true),
	}
	return append(plants, plantsOfResults()...)
}

// plantsOfResults are corruptions of the inbox, and of the topics of results and dead letters.
func plantsOfResults() []plant {
	const refused = "SELECT company_id, event_id FROM inbox WHERE state = 'rejected' AND type LIKE 'subscription.%'"
	results := func(e *planted) string { return e.y.prefix + events.TopicSubscriptionResults }
	return []plant{
		{"a stored result changed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, id := e.pick(t, refused)
			e.y.exec(t, `UPDATE inbox SET result = jsonb_set(result, '{events,0,data,code}', '"another"') WHERE event_id = $1`, id)
			return []expected{{verify.AlteredResult, id}}
		}, false},
		{"a row of the inbox removed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, id := e.pick(t, refused)
			e.y.exec(t, "DELETE FROM inbox WHERE event_id = $1", id)
			found := []expected{{verify.ForeignResult, id}}
			// Each record of the event in the log, resends too, has lost what says that it is done.
			for range e.records(t, events.TopicSubscription, id) {
				found = append(found, expected{verify.Unapplied, id})
			}
			return found
		}, false},
		{"a result missing", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, cause := e.pick(t, refused)
			var gone string
			e.rewrite(t, results(e), 2, func(m kafkago.Message) []kafkago.Message {
				if header(&m, "ce_causationid") == cause {
					gone = header(&m, "ce_id")
					return nil
				}
				return []kafkago.Message{m}
			})
			return []expected{{verify.MissingResult, gone}}
		}, true},
		{"a result once more under its id", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, cause := e.pick(t, refused)
			e.rewrite(t, results(e), 2, func(m kafkago.Message) []kafkago.Message {
				if header(&m, "ce_causationid") == cause {
					return []kafkago.Message{m, m}
				}
				return []kafkago.Message{m}
			})
			return nil // which is no fault
		}, true},
		{"a result once more under another id", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, cause := e.pick(t, refused)
			other := uuid.NewString()
			e.rewrite(t, results(e), 2, func(m kafkago.Message) []kafkago.Message {
				if header(&m, "ce_causationid") == cause {
					return []kafkago.Message{m, withHeader(m, "ce_id", other)}
				}
				return []kafkago.Message{m}
			})
			return []expected{{verify.DoubledResult, other}}
		}, false},
		{"a result of nothing", func(t *testing.T, e *planted) []expected {
			t.Helper()
			_, cause := e.pick(t, refused)
			other := uuid.NewString()
			e.rewrite(t, results(e), 2, func(m kafkago.Message) []kafkago.Message {
				if header(&m, "ce_causationid") == cause {
					return []kafkago.Message{m, withHeader(withHeader(m, "ce_id", other), "ce_causationid", "never sent")}
				}
				return []kafkago.Message{m}
			})
			return []expected{{verify.ForeignResult, other}}
		}, false},
		{"a dead letter of a subscription event removed", func(t *testing.T, e *planted) []expected {
			t.Helper()
			topic := e.y.prefix + events.TopicSubscription
			var place string
			e.rewrite(t, events.DeadLetterTopic(topic), 1, func(m kafkago.Message) []kafkago.Message {
				if place == "" {
					place = topic + "/" + header(&m, events.HeaderPartition) + "/" + header(&m, events.HeaderOffset) + " "
					return nil
				}
				return []kafkago.Message{m}
			})
			return []expected{{verify.Unapplied, place}}
		}, false},
	}
}
