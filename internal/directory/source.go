package directory

import (
	"context"
	"errors"
	"time"
)

// ErrUnknown says that Postgres has no such user or company. Any other error of a look-up is transient: the answer is not
// known right now.
var ErrUnknown = errors.New("not known")

// How long what is cached in Dragonfly lives there.
const (
	SubscriptionTTL  = time.Hour
	CompanyConfigTTL = 2 * time.Hour
	BillingPeriodTTL = 24 * time.Hour
)

// left is how long a copy may still be used that was made at a time and holds a period with an end, or of none. A period may roll
// over without a change in the feed. One that had ended when the copy was made stays so until it is changed.
func left(cachedAt time.Time, ttl time.Duration, end *time.Time) time.Duration {
	left := ttl - time.Since(cachedAt)
	if end != nil && end.After(cachedAt) {
		left = min(left, time.Until(*end))
	}
	return left
}

// Left is how long it may still be used. With a quota block it expires with that, so that no block is ever older than QuotaAge.
func (s *Subscription) Left() time.Duration {
	whole := left(s.CachedAt, SubscriptionTTL, s.EndDate)
	if s.Quota.Date == "" {
		return whole
	}
	return min(whole, QuotaAge-time.Since(s.Quota.AsOf))
}

// Left is how long it may still be used.
func (c *CompanyConfig) Left() time.Duration { return left(c.CachedAt, CompanyConfigTTL, nil) }

// Left is how long it may still be used.
func (p *BillingPeriod) Left() time.Duration { return left(p.CachedAt, BillingPeriodTTL, p.PeriodEnd) }

// QuotaAge is the greatest age of a quota block in a cached subscription.
const QuotaAge = 15 * time.Minute

// FeedReach is how long the rows of the change feed must be kept at least.
const FeedReach = 2 * time.Hour

// A Loader reads from Postgres, where the truth is.
type Loader interface {
	// Users returns those of the users that are known, in any order. Quota and CachedAt are left empty. Origin is empty if what the
	// server holds may be old; the answer is then used once and not kept. Those who belong to no company any more have only their
	// UserID and Memberships.
	Users(ctx context.Context, ids []string) ([]Subscription, error)
	// UserOf returns a user who belongs to one of the companies, or an error that is ErrUnknown. It takes as long for a user of another
	// company as for one who does not exist.
	UserOf(ctx context.Context, id string, companies []string) (Subscription, error)
	// Company returns a company, or an error that is ErrUnknown.
	Company(ctx context.Context, id string) (Company, error)
	// Changes reads a page of the change feed, from a position that an earlier page has given, or from the empty one.
	Changes(ctx context.Context, since Position) (Feed, error)
}

// A Position is a place in the change feed. It means something only to the Loader.
type Position string

// A Feed is one page of the change feed.
type Feed struct {
	// Changes are committed changes, none of which an earlier page has returned. None is left out, also if it was committed late.
	Changes []Change
	Next    Position
	// More says that there are more. Without it, everything was returned that was committed before the read began.
	More bool
	// Origin is the run of the server that answered. It differs after every restart and failover: transaction ids and versions may
	// then have been given again, so nothing of another origin says anything about this one.
	Origin string
	// Begun says that the page does not go on from the position: it is the first of everything that the feed holds, which is at
	// least the changes of the last FeedReach.
	Begun bool
}

// A Change says that something about a user or a whole company is not what it was.
type Change struct {
	CompanyID string
	UserID    string // empty: the whole company
	// Version is unique to the change. Versions of changes of one row rise in the order of their commits; those of
	// different rows need not.
	Version int64
}

// A Cache is what processes share: Dragonfly. It holds entries for a time, and may lose any of them at any time. A put
// never replaces a newer version by an older one of the same origin, and gives the entry what is Left of its time.
type Cache interface {
	// Subscriptions returns what is cached, in the order of users: nil where there is nothing that can be read.
	Subscriptions(ctx context.Context, users []string) ([]*Subscription, error)
	// SubscriptionOf returns what is cached of a user, if the company is allowed: nil otherwise, as if there were nothing.
	SubscriptionOf(ctx context.Context, user string, allowed func(company string) bool) (*Subscription, error)
	// PutSubscriptions returns by index which of the subscriptions it has not stored, because a newer one is there.
	PutSubscriptions(ctx context.Context, subs []*Subscription) (refused []int, err error)
	// CompanyConfig returns nil if there is nothing that can be read.
	CompanyConfig(ctx context.Context, company string) (*CompanyConfig, error)
	// BillingPeriod returns nil if there is nothing that can be read.
	BillingPeriod(ctx context.Context, company string) (*BillingPeriod, error)
	// PutCompany stores both, and reports whether it has: false if a newer one is there.
	PutCompany(ctx context.Context, config *CompanyConfig, period *BillingPeriod) (stored bool, err error)
	// Invalidate deletes the subscriptions of the users, and the configurations and periods of the companies, if they are
	// older than the given versions or of another origin.
	Invalidate(ctx context.Context, users, companies map[string]int64, origin string) error
	// Sweep deletes the entries of other origins from a part of the cache, and returns where to go on; 0: this was the last part.
	Sweep(ctx context.Context, origin string, cursor uint64) (next uint64, err error)
}
