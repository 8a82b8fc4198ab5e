package directory

import (
	"sync"
	"sync/atomic"
	"time"
)

// known is what the feed has told: the newest change of each company and each user. It decides whether an entry may
// still be used.
//
// Time is counted in epochs: every poll that tells something new begins one. A load from Postgres that began in epoch n
// has seen all changes told up to n, whatever their versions are; one told later may have been missed. An entry of the
// process carries its epoch. One in Dragonfly can't, as epochs mean nothing to others: it carries its version and the
// time of its load.
type known struct {
	epoch     atomic.Uint64
	mu        sync.RWMutex
	users     ledger
	companies ledger
	last      map[Change]struct{} // of the last poll, which the next one may tell again
}

// A ledger is the newest change by user or by company, in two generations like memory: older ones are forgotten, and
// what they would have told about is no longer vouched for.
type ledger struct {
	newer, older map[string]told
	keep         time.Duration // of one generation
	most         int           // keys of one generation

	from      time.Time // when the newer generation began
	fromEpoch uint64    // the epoch before it
	horizon   time.Time // every change committed since then is in the ledger; zero: none surely is
	forgotten uint64    // changes told before this epoch may be missing
}

type told struct {
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
	k.users = ledger{newer: map[string]told{}, keep: SubscriptionTTL + 10*time.Minute, most: ledgerKeys}
	k.companies = ledger{newer: map[string]told{}, keep: BillingPeriodTTL + 10*time.Minute, most: ledgerKeys}
	return k
}

// tell takes in what a poll has told, and returns whose entries have become old by it, with the versions they lack. A poll that did not go on from
// the one before says from when on it has told everything: what was known before has no meaning any more, and all entries
// of the process become old.
func (k *known) tell(changes []Change, everythingSince, now time.Time) (users, companies map[string]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	users, companies = map[string]int64{}, map[string]int64{}
	last := make(map[Change]struct{}, len(changes))
	epoch := k.epoch.Load() + 1
	anew := !everythingSince.IsZero()
	if anew {
		for _, l := range []*ledger{&k.users, &k.companies} {
			l.newer, l.older = map[string]told{}, nil
			l.from, l.fromEpoch, l.horizon, l.forgotten = everythingSince, epoch, everythingSince, epoch
		}
	}
	for _, c := range changes {
		last[c] = struct{}{}
		if _, again := k.last[c]; again {
			continue
		}
		if c.UserID != "" {
			users[c.UserID] = k.users.tell(c.UserID, c.Version, epoch)
		} else {
			companies[c.CompanyID] = k.companies.tell(c.CompanyID, c.Version, epoch)
		}
	}
	// A change is told again only for as long as a poll overlaps with the one before.
	k.last = last
	if anew || len(users)+len(companies) > 0 {
		// After the ledgers: whoever sees the epoch finds its changes.
		k.epoch.Store(epoch)
	}
	k.users.age(now, k.epoch.Load())
	k.companies.age(now, k.epoch.Load())
	return users, companies
}

// tell notes a change, and returns the version of the key's newest one.
func (l *ledger) tell(key string, version int64, epoch uint64) int64 {
	version = max(l.find(key).version, version)
	l.newer[key] = told{epoch: epoch, version: version}
	delete(l.older, key)
	return version
}

func (l *ledger) find(key string) told {
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
	l.older, l.newer = l.newer, map[string]told{}
	l.from, l.fromEpoch = now, epoch
}

// changedSince tells whether a company or one of its users may have changed without an entry of the given epoch knowing.
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

func (k *known) judge(company, user string, version int64, cachedAt time.Time) verdict {
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch {
	case version < k.newest(company, user):
		return outdated
	case user != "" && !k.users.covers(cachedAt) || !k.companies.covers(cachedAt):
		return unsure
	default:
		return current
	}
}

func (l *ledger) covers(at time.Time) bool { return !l.horizon.IsZero() && !at.Before(l.horizon) }

// newestOf returns the version of the newest change known of a company and its user; 0: none. What was loaded after that
// was told is at least of this version, even if the rows that are left say less: one was deleted.
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
