package consumers

import (
	"errors"

	"tenantflow/events"
)

// The names of consumers in the header replay-effects.
const (
	usageEffect        = "usage"
	quotaEffect        = "quota"
	subscriptionEffect = "subscription"
	companyEffect      = "company"
)

// errReplayed says that a record was published by a replay for other consumers.
var errReplayed = errors.New("published by a replay for other consumers")

// skipsReplayed reports whether a consumer leaves a record out because a replay has published it for others. That takes the proof of
// this service: without it, any producer could so keep an event from being counted. Then the headers mean nothing.
func skipsReplayed(r *events.Record, consumer string, key events.ReplayKey, source, id []byte) bool {
	replayed, ok := events.ReadReplayed(r.Headers)
	return ok && !replayed.Names(consumer) && key.Proven(&replayed, string(source), string(id))
}

// notMeant rejects a usage event that was published for other consumers although the table does not hold it. The headers need no proof
// here: an event that is in the table has had its effect, and one that is not must not vanish without a trace, no matter who sent it.
func notMeant() *events.Rejection {
	return events.Reject(events.MalformedEnvelope, "the header %s does not name %s, and no row of the event is in the table", events.HeaderReplayEffects, usageEffect)
}
