package dragonfly

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/directory"
)

var (
	//go:embed cache_put.lua
	cachePutSource string
	//go:embed cache_drop.lua
	cacheDropSource string
)

// How the keys of the cache begin. The braces are literal: they are the hash tag, so all keys of a user or a company lie
// on one thread of Dragonfly.
const (
	subscriptionKey  = "subscription:{"
	companyConfigKey = "company_config:{"
	billingPeriodKey = "billing_period:{"
)

// Cache keeps what the directory knows of users and companies where all processes find it. It is a directory.Cache. Every
// key expires; nothing in it is ever the only copy.
type Cache struct {
	client redis.UniversalClient
	put    *redis.Script
	drop   *redis.Script
}

// NewCache makes a cache. The client stays the caller's to close.
func NewCache(client redis.UniversalClient) *Cache {
	return &Cache{client: client, put: redis.NewScript(cachePutSource), drop: redis.NewScript(cacheDropSource)}
}

// Subscriptions returns what is cached, in the order of users: nil where there is nothing that can be read.
func (c *Cache) Subscriptions(ctx context.Context, users []string) ([]*directory.Subscription, error) {
	keys := make([]string, len(users))
	for i, user := range users {
		keys[i] = subscriptionKey + user + "}"
	}
	subs := make([]*directory.Subscription, len(users))
	err := c.read(ctx, keys, func(i int, text []byte) bool {
		subs[i] = readSubscription(users[i], text)
		return subs[i] != nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %d cached subscriptions: %w", len(users), err)
	}
	return subs, nil
}

// SubscriptionOf returns what is cached of a user, if the company is allowed. What is not allowed is not even decoded: it looks, and
// takes about as long, as if there were nothing.
func (c *Cache) SubscriptionOf(ctx context.Context, user string, allowed func(company string) bool) (*directory.Subscription, error) {
	text, err := c.client.Get(ctx, subscriptionKey+user+"}").Bytes()
	switch {
	case errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "WRONGTYPE"):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the cached subscription of user %s: %w", user, err)
	}
	const name, front = `"company_id":"`, 400 // it stands behind version, origin and user_id
	_, rest, _ := bytes.Cut(text[:min(len(text), front)], []byte(name))
	company, _, found := bytes.Cut(rest, []byte{'"'})
	if !found || !allowed(string(company)) {
		return nil, nil
	}
	if s := readSubscription(user, text); s != nil && allowed(s.CompanyID) {
		return s, nil
	}
	return nil, nil
}

// readSubscription reads an entry; nil: it is none of ours, or too old.
func readSubscription(user string, text []byte) *directory.Subscription {
	s := new(directory.Subscription)
	if json.Unmarshal(text, s) != nil || s.UserID != user || s.CompanyID == "" || !plausible(s.Version, s.CachedAt, s.Left()) {
		return nil
	}
	return s
}

// CompanyConfig returns the cached configuration of a company, or nil if there is none that can be read.
func (c *Cache) CompanyConfig(ctx context.Context, company string) (*directory.CompanyConfig, error) {
	var config *directory.CompanyConfig
	err := c.read(ctx, []string{companyConfigKey + company + "}"}, func(_ int, text []byte) bool {
		v := new(directory.CompanyConfig)
		if json.Unmarshal(text, v) != nil || v.CompanyID != company ||
			!plausible(v.Version, v.CachedAt, v.Left()) {
			return false
		}
		config = v
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read the cached configuration of company %s: %w", company, err)
	}
	return config, nil
}

// BillingPeriod returns the cached billing period of a company, or nil if there is none that can be read.
func (c *Cache) BillingPeriod(ctx context.Context, company string) (*directory.BillingPeriod, error) {
	var period *directory.BillingPeriod
	err := c.read(ctx, []string{billingPeriodKey + company + "}"}, func(_ int, text []byte) bool {
		v := new(directory.BillingPeriod)
		if json.Unmarshal(text, v) != nil || v.CompanyID != company ||
			!plausible(v.Version, v.CachedAt, v.Left()) {
			return false
		}
		period = v
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read the cached billing period of company %s: %w", company, err)
	}
	return period, nil
}

// plausible reports whether an entry can be one of ours that is still alive. A clock may be a little ahead of another.
func plausible(version int64, cachedAt time.Time, left time.Duration) bool {
	return version >= 1 && version <= 1<<53 && time.Since(cachedAt) > -5*time.Minute && left > 0
}

// read gets many keys and gives each value to accept, with the key's index. What accept refuses, and a key of another
// type, is another program's junk: it is deleted, so that its version, if it seems to have one, does not keep a good
// entry out. A key that is not there is no error.
func (c *Cache) read(ctx context.Context, keys []string, accept func(i int, text []byte) bool) error {
	pipe := c.client.Pipeline()
	answers := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		answers[i] = pipe.Get(ctx, key)
	}
	// The pipeline's own error is the first one of its commands, and each is looked at below.
	_, _ = pipe.Exec(ctx)
	var junk []string
	for i, answer := range answers {
		text, err := answer.Bytes()
		switch {
		case errors.Is(err, redis.Nil):
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			junk = append(junk, keys[i])
		case err != nil:
			return err
		case !accept(i, text):
			junk = append(junk, keys[i])
		}
	}
	if len(junk) == 0 {
		return nil
	}
	pipe = c.client.Pipeline()
	for _, key := range junk { // one command each: they lie on different threads and, in a cluster, on different nodes
		pipe.Del(ctx, key)
	}
	_, err := pipe.Exec(ctx)
	return err
}

// PutSubscriptions stores subscriptions, and returns by index which of them it has not stored because newer ones are there.
func (c *Cache) PutSubscriptions(ctx context.Context, subs []*directory.Subscription) (refused []int, err error) {
	entries := make([]cacheEntry, len(subs))
	for i, s := range subs {
		entries[i] = cacheEntry{subscriptionKey + s.UserID + "}", s.Document(), s.Version, s.Origin, seconds(s.Left(), directory.SubscriptionTTL)}
	}
	refused, err = c.write(ctx, entries)
	if err != nil {
		return refused, fmt.Errorf("cache %d subscriptions: %w", len(subs), err)
	}
	return refused, nil
}

// PutCompany stores the configuration and the period of a company. It returns false if either was refused because a
// newer one is there.
func (c *Cache) PutCompany(ctx context.Context, config *directory.CompanyConfig, period *directory.BillingPeriod) (stored bool, err error) {
	refused, err := c.write(ctx, []cacheEntry{
		{companyConfigKey + config.CompanyID + "}", config, config.Version, config.Origin, seconds(config.Left(), directory.CompanyConfigTTL)},
		{billingPeriodKey + period.CompanyID + "}", period, period.Version, period.Origin, seconds(period.Left(), directory.BillingPeriodTTL)},
	})
	if err != nil {
		return false, fmt.Errorf("cache company %s: %w", config.CompanyID, err)
	}
	return len(refused) == 0, nil
}

// Invalidate deletes the subscriptions of users, and the configurations and periods of companies, if they are older than
// the given versions or of another origin.
func (c *Cache) Invalidate(ctx context.Context, users, companies map[string]int64, origin string) error {
	calls := make([]scriptCall, 0, len(users)+2*len(companies))
	for user, version := range users {
		calls = append(calls, scriptCall{subscriptionKey + user + "}", []any{version, origin}})
	}
	for company, version := range companies {
		calls = append(calls, scriptCall{companyConfigKey + company + "}", []any{version, origin}},
			scriptCall{billingPeriodKey + company + "}", []any{version, origin}})
	}
	const atOnce = 1000 // so that one pipeline does not keep others of this server waiting
	for part := range slices.Chunk(calls, atOnce) {
		if _, err := c.run(ctx, c.drop, part); err != nil {
			return fmt.Errorf("invalidate the cache of %d users and %d companies: %w", len(users), len(companies), err)
		}
	}
	return nil
}

// Sweep deletes entries of other origins from a part of the keys, and returns where to go on; 0: this was the last part.
func (c *Cache) Sweep(ctx context.Context, origin string, cursor uint64) (next uint64, err error) {
	const atOnce = 1000 // keys looked at; counters are among them
	keys, next, err := c.client.Scan(ctx, cursor, "*:{*}", atOnce).Result()
	if err != nil {
		return cursor, fmt.Errorf("look for cached users and companies: %w", err)
	}
	var calls []scriptCall
	for _, key := range keys {
		if strings.HasPrefix(key, subscriptionKey) || strings.HasPrefix(key, companyConfigKey) || strings.HasPrefix(key, billingPeriodKey) {
			calls = append(calls, scriptCall{key, []any{0, origin}})
		}
	}
	if _, err := c.run(ctx, c.drop, calls); err != nil {
		return cursor, fmt.Errorf("delete %d cached users and companies of another origin: %w", len(calls), err)
	}
	return next, nil
}

// A cacheEntry is a document on its way into the cache.
type cacheEntry struct {
	key      string
	document any
	version  int64
	origin   string
	seconds  int64 // to live; none left: it is not stored
}

// seconds is what is left of an entry's time, a begun second included. A clock that is behind gives it no more than all.
func seconds(left, ttl time.Duration) int64 {
	return int64(math.Ceil(min(left, ttl).Seconds()))
}

// write stores entries, and returns by index which of them were refused because newer ones are there. An error may come
// after some were stored.
func (c *Cache) write(ctx context.Context, entries []cacheEntry) (refused []int, err error) {
	calls := make([]scriptCall, 0, len(entries))
	indexes := make([]int, 0, len(entries)) // of the entries that are stored at all
	for i, e := range entries {
		text, err := json.Marshal(e.document)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", e.key, err)
		}
		if e.seconds > 0 {
			calls = append(calls, scriptCall{e.key, []any{text, e.version, e.origin, e.seconds}})
			indexes = append(indexes, i)
		}
	}
	answers, err := c.run(ctx, c.put, calls)
	for i, stored := range answers {
		if stored == 0 {
			refused = append(refused, indexes[i])
		}
	}
	return refused, err
}

// A scriptCall is one call of a script: the key it declares and its arguments.
type scriptCall struct {
	key       string
	arguments []any
}

// run calls a script many times in one round trip, and returns what it answers. Calls may be made twice: to store or
// delete an entry once more changes nothing.
func (c *Cache) run(ctx context.Context, script *redis.Script, calls []scriptCall) ([]int64, error) {
	if len(calls) == 0 {
		return nil, nil
	}
	answers, err := c.runLoaded(ctx, script, calls)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		// The first use, or Dragonfly was restarted.
		if err := script.Load(ctx, c.client).Err(); err != nil {
			return nil, fmt.Errorf("load the script: %w", err)
		}
		answers, err = c.runLoaded(ctx, script, calls)
	}
	return answers, err
}

func (c *Cache) runLoaded(ctx context.Context, script *redis.Script, calls []scriptCall) ([]int64, error) {
	pipe := c.client.Pipeline()
	pending := make([]*redis.Cmd, len(calls))
	for i, call := range calls {
		pending[i] = script.EvalSha(ctx, pipe, []string{call.key}, call.arguments...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	answers := make([]int64, len(calls))
	for i, answer := range pending {
		var err error
		if answers[i], err = answer.Int64(); err != nil {
			return nil, fmt.Errorf("read what the script answers for %s: %w", calls[i].key, err)
		}
	}
	return answers, nil
}
