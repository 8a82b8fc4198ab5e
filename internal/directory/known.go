package directory

import (
	"sync"
	"sync/atomic"
	"time"
)

// known is what the feed has reported: the newest change of each company and each user. It decides whether an entry may
// still be used.
//
// Time is counted in epochs: every poll that returns something new begins one. A load from Postgres that began in epoch n
// has seen all changes reported up to n, whatever their versions are; one reported later may have been missed. An entry of the
// process carries its epoch. One in Dragonfly can't, as epochs mean nothing to others: it carries its vintage.
type known struct {
	epoch     atomic.Uint64
	mu        sync.RWMutex
	users     ledger
	companies ledger
	origin    string // of the feed; empty: it was never read
	whole     bool   // everything that the feed holds of the origin has been read
}

// A ledger is the newest change by user or by company, in two generations like memory: older ones are forgotten, and
// the entries they were about are no longer vouched for.
type ledger struct {
	newer, older map[string]reported
	keep         time.Duration // of one generation
	most         int           // keys of one generation

	from      time.Time // when the newer generation began
	fromEpoch uint64    // the epoch before it
	horizon   time.Time // every change committed since then is in the ledger
	forgotten uint64    // changes reported before this epoch may be missing
}

type reported struct {
	epoch   uint64
	version int64
}

// ledgerKeys bounds a generation of a ledger: with two of them for users and two for companies, some 100 MB if ever so
// many change within a day.
const ledgerKeys = 250_000

func newKnown() *known {
	k := &known{}
	// What lives longest in Dragonfly decides how long a change must be remembered, because an older entry is not
	// used. Two generations: each as long as that.
	k.users = ledger{newer: map[string]reported{}, keep: SubscriptionTTL + 10*time.Minute, most: ledgerKeys}
	k.companies = ledger{newer: map[string]reported{}, keep: BillingPeriodTTL + 10*time.Minute, most: ledgerKeys}
	return k
}

// begin makes everything stale that was known or loaded before: the feed begins at its beginning, perhaps with another origin.
func (k *known) begin(origin string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.origin, k.whole = origin, false
	epoch := k.epoch.Load() + 1
	for _, l := range []*ledger{&k.users, &k.companies} {
		l.newer, l.older = map[string]reported{}, nil
		l.from, l.fromEpoch, l.horizon, l.forgotten = now, epoch, now, epoch
	}
	k.epoch.Store(epoch)
}

// cover notes that all changes that were committed since a time have been reported, unless some of them have been forgotten again.
func (k *known) cover(since time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.whole = true
	for _, l := range []*ledger{&k.users, &k.companies} {
		if l.older == nil { // none is forgotten
			l.from, l.horizon = since, since
		}
	}
}

// note takes in a page of the feed, and returns whose entries are stale now, with the versions they lack.
func (k *known) note(changes []Change, now time.Time) (users, companies map[string]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	users, companies = map[string]int64{}, map[string]int64{}
	epoch := k.epoch.Load() + 1
	for _, c := range changes {
		if c.UserID != "" {
			users[c.UserID] = k.users.note(c.UserID, c.Version, epoch)
		} else {
			companies[c.CompanyID] = k.companies.note(c.CompanyID, c.Version, epoch)
		}
	}
	if len(changes) > 0 {
		// After the ledgers: a reader that sees the epoch finds its changes.
		k.epoch.Store(epoch)
	}
	k.users.age(now, k.epoch.Load())
	k.companies.age(now, k.epoch.Load())
	return users, companies
}

// note notes a change, and returns the version of the key's newest one.
func (l *ledger) note(key string, version int64, epoch uint64) int64 {
	version = max(l.find(key).version, version)
	l.newer[key] = reported{epoch: epoch, version: version}
	delete(l.older, key)
	return version
}

func (l *ledger) find(key string) reported {
	if t, ok := l.newer[key]; ok {
		return t
	}
	return l.older[key]
}

func (l *ledger) age(now time.Time, epoch uint64) {
	if now.Sub(l.from) < l.keep && len(l.newer) < l.most {
		return
	}
	l.horizon, l.forgotten = l.from, l.fromEpoch
	l.older, l.newer = l.newer, map[string]reported{}
	l.from, l.fromEpoch = now, epoch
}

// changedSince reports whether a company or one of its users may have changed without an entry of the given epoch knowing.
// An empty company or user is not looked at.
func (k *known) changedSince(company, user string, epoch uint64) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return epoch < k.users.forgotten || epoch < k.companies.forgotten ||
		user != "" && k.users.find(user).epoch > epoch ||
		company != "" && k.companies.find(company).epoch > epoch
}

// A verdict says whether an entry found in Dragonfly may be used.
type verdict int

const (
	current  verdict = iota
	outdated         // a newer version exists
	unsure           // it comes from a time of which not all changes are known: better than nothing
)

// A vintage is what an entry in Dragonfly says of its age.
type vintage struct {
	version  int64
	cachedAt time.Time
	origin   string
}

func (k *known) judge(company, user string, v vintage) verdict {
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch {
	case v.origin != k.origin || !k.whole: // versions say nothing
		return unsure
	case v.version < k.newest(company, user):
		return outdated
	case user != "" && !k.users.covers(v.cachedAt) || !k.companies.covers(v.cachedAt):
		return unsure
	default:
		return current
	}
}

// source returns the origin of the feed.
func (k *known) source() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.origin
}

// from reports whether an answer of Postgres comes from where the feed does. One without an origin does not: it may be old. Without a
// feed it can't be known.
func (k *known) from(origin string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return origin != "" && (k.origin == "" || k.origin == origin)
}

func (l *ledger) covers(at time.Time) bool { return !at.Before(l.horizon) }

// newestOf returns the version of the newest change known of a company and its user; 0: none. What was loaded after that
// was reported is at least of this version, even if the rows that are left say less: one was deleted.
func (k *known) newestOf(company, user string) int64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.newest(company, user)
}

func (k *known) newest(company, user string) int64 {
	version := k.companies.find(company).version
	if user != "" {
		version = max(version, k.users.find(user).version)
	}
	return version
}
