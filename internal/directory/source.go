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

// left is how long a copy may still be used that was made at a time and tells of a period with an end, or of none. A period may go on
// by itself, without a change that anybody is told. One that had ended when the copy was made stays so until it is changed.
func left(cachedAt time.Time, ttl time.Duration, end *time.Time) time.Duration {
	left := ttl - time.Since(cachedAt)
	if end != nil && end.After(cachedAt) {
		left = min(left, time.Until(*end))
	}
	return left
}

// Left is how long it may still be used.
func (s *Subscription) Left() time.Duration { return left(s.CachedAt, SubscriptionTTL, s.EndDate) }

// Left is how long it may still be used.
func (c *CompanyConfig) Left() time.Duration { return left(c.CachedAt, CompanyConfigTTL, nil) }

// Left is how long it may still be used.
func (p *BillingPeriod) Left() time.Duration { return left(p.CachedAt, BillingPeriodTTL, p.PeriodEnd) }

// QuotaAge is the greatest age of the quota block in a subscription that is shown to somebody.
const QuotaAge = 15 * time.Minute

// FeedReach is how far back the first poll of Changes reaches. Rows of the feed must be kept at least that long.
const FeedReach = 2 * time.Hour

// A Loader reads from Postgres, where the truth is.
type Loader interface {
	// Users returns those of the users that are known, in any order. Quota and CachedAt are left empty.
	Users(ctx context.Context, ids []string) ([]Subscription, error)
	// Company returns a company, or an error that is ErrUnknown.
	Company(ctx context.Context, id string) (Company, error)
	// Changes returns the committed changes that were not told before the position, and the position to ask from next
	// time. A change may be told more than once, none is left out, also if it is committed late. From the zero position:
	// those of the last FeedReach.
	Changes(ctx context.Context, since Position) ([]Change, Position, error)
}

// A Position is a place in the change feed. It means something only to the Loader.
type Position uint64

// A Change says that something about a user or a whole company is not what it was.
type Change struct {
	CompanyID string
	UserID    string // empty: the whole company
	// Version is unique to the change. Versions of changes of one row rise in the order of their commits; those of
	// different rows need not.
	Version int64
}

// A Cache is what processes share: Dragonfly. It holds entries for a time, and may lose any of them at any time. A put
// never replaces a newer version by an older one, and gives the entry what is Left of its time.
type Cache interface {
	// Subscriptions returns what is cached, in the order of users: nil where there is nothing that can be read.
	Subscriptions(ctx context.Context, users []string) ([]*Subscription, error)
	// PutSubscriptions tells by index which of the subscriptions it has not stored, because a newer one is there.
	PutSubscriptions(ctx context.Context, subs []*Subscription) (refused []int, err error)
	// CompanyConfig returns nil if there is nothing that can be read.
	CompanyConfig(ctx context.Context, company string) (*CompanyConfig, error)
	// BillingPeriod returns nil if there is nothing that can be read.
	BillingPeriod(ctx context.Context, company string) (*BillingPeriod, error)
	// PutCompany stores both, and tells whether it has: false if a newer one is there.
	PutCompany(ctx context.Context, config *CompanyConfig, period *BillingPeriod) (stored bool, err error)
	// Invalidate deletes the subscriptions of the users, and the configurations and periods of the companies, if they are
	// older than the given versions.
	Invalidate(ctx context.Context, users, companies map[string]int64) error
}
