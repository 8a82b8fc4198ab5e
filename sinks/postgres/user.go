package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

var (
	//go:embed users.sql
	usersSQL string
	//go:embed users_former.sql
	formerSQL string
	//go:embed company.sql
	companySQL string
	//go:embed members.sql
	membersSQL string
)

var _ directory.Loader = (*Store)(nil)

// Users returns those of the users that are known, in any order. Quota and CachedAt are left empty. Of one who belongs to no
// company any more, only UserID, Memberships and Origin are set.
//
// A user whose company has no subscription has an empty tier, an empty billing status and limits of zero. The billing
// status of a company that is closed is closed, whatever its subscription says.
func (s *Store) Users(ctx context.Context, ids []string) ([]directory.Subscription, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	known, err := s.members(ctx, usersSQL, ids)
	if err != nil {
		return nil, err
	}
	there := make(map[string]struct{}, len(known))
	for i := range known {
		there[known[i].UserID] = struct{}{}
	}
	missing := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, ok := there[id]; return ok })
	if len(missing) == 0 {
		return known, nil
	}
	slices.Sort(missing)
	return s.former(ctx, slices.Compact(missing), known)
}

// UserOf returns a user who belongs to one of the companies. For any other, known or not, the query does the same work: it finds no
// row. The error is then directory.ErrUnknown.
func (s *Store) UserOf(ctx context.Context, id string, companies []string) (directory.Subscription, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	found, err := s.members(ctx, usersSQL+" AND u.company_id = ANY ($2)", []string{id}, companies)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("look user %q up in Postgres: %w", id, directory.ErrUnknown)
	}
	if err != nil {
		return directory.Subscription{}, err
	}
	return found[0], nil
}

// members runs a query of users.sql.
func (s *Store) members(ctx context.Context, query string, arguments ...any) ([]directory.Subscription, error) {
	rows, err := s.pool.Query(ctx, query, arguments...)
	if err != nil {
		return nil, explain("look users up", err)
	}
	limits := limitsReader{}
	known, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (directory.Subscription, error) {
		var u directory.Subscription
		var text []byte
		var notInCatalogue bool
		var m memberships
		err := row.Scan(&u.UserID, &u.CompanyID, &u.Email, &u.Status, &u.StartDate, &u.EndDate, &u.CreatedAt, &u.UpdatedAt, &u.LastActivity,
			&u.Tier, &u.BillingStatus, &text, &notInCatalogue, &u.Version, &m.companies, &m.since, &m.until, &m.recorded, &m.ended, &u.Origin)
		if err != nil {
			return u, err
		}
		if notInCatalogue {
			s.sayUnlisted(u.Tier, u.CompanyID)
		}
		u.Memberships = m.list()
		u.Limits, err = limits.read(text)
		return u, err
	})
	if err != nil {
		return nil, explain("look users up", err)
	}
	return known, nil
}

// former adds those of the users who have belonged to a company.
func (s *Store) former(ctx context.Context, ids []string, known []directory.Subscription) ([]directory.Subscription, error) {
	rows, err := s.pool.Query(ctx, formerSQL, ids)
	if err == nil {
		known, err = pgx.AppendRows(known, rows, func(row pgx.CollectableRow) (directory.Subscription, error) {
			var u directory.Subscription
			var m memberships
			err := row.Scan(&u.UserID, &m.companies, &m.since, &m.until, &m.recorded, &m.ended, &u.Origin)
			u.Memberships = m.list()
			return u, err
		})
	}
	if err != nil {
		return nil, explain("look up whose users were", err)
	}
	return known, nil
}

// memberships are a user's as columns.
type memberships struct {
	companies              []string
	since                  []time.Time
	until, recorded, ended []*time.Time
}

func (m memberships) list() []directory.Membership {
	utc := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return t.UTC()
	}
	all := make([]directory.Membership, len(m.companies))
	for i := range all {
		all[i] = directory.Membership{CompanyID: m.companies[i], Since: m.since[i].UTC(), Until: utc(m.until[i]),
			RecordedAt: utc(m.recorded[i]), EndedAt: utc(m.ended[i])}
	}
	return all
}

// Company returns what is known of a company. An unknown one is directory.ErrUnknown. Without a subscription, tier and
// status are empty and the limits zero.
func (s *Store) Company(ctx context.Context, id string) (directory.Company, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var c directory.Company
	var text []byte
	var notInCatalogue bool
	err := s.pool.QueryRow(ctx, companySQL, id).Scan(&c.CompanyID, &c.BillingEmail, &c.Tier, &text, &c.SupportLevel, &c.Config,
		&c.Period.Start, &c.Period.End, &c.Period.Status, &notInCatalogue, &c.Version, &c.Origin)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, fmt.Errorf("look company %q up in Postgres: %w", id, directory.ErrUnknown)
	}
	if err == nil {
		c.Limits, err = limitsReader{}.read(text)
	}
	if err != nil {
		return directory.Company{}, explain("look a company up", err)
	}
	if notInCatalogue {
		s.sayUnlisted(c.Tier, id)
	}
	return c, nil
}

// Members returns up to limit users of a company, those that come after the given one, in the order of their ids.
func (s *Store) Members(ctx context.Context, company, after string, limit int) ([]string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, membersSQL, company, after, limit)
	if err != nil {
		return nil, explain("list the users of a company", err)
	}
	users, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, explain("list the users of a company", err)
	}
	return users, nil
}

// unlistedAgain is how long a tier that is not in the catalogue is not mentioned again.
const unlistedAgain = time.Hour

// sayUnlisted logs that a tier is not in the catalogue, once an hour for each.
func (s *Store) sayUnlisted(name, company string) {
	now := time.Now()
	before, said := s.unlisted.LoadOrStore(name, now)
	if said {
		last, ok := before.(time.Time)
		said = !ok || now.Sub(last) < unlistedAgain || !s.unlisted.CompareAndSwap(name, before, now)
	}
	if !said {
		s.log.Warn("a subscription's tier is not in the catalogue; without limits of its own it is treated as free",
			"tier", name, "company_id", company)
	}
}

// A limitsReader reads limits, each text once: the users of a company have the same, and most companies too.
type limitsReader map[string]tier.Limits

func (r limitsReader) read(text []byte) (tier.Limits, error) {
	if known, ok := r[string(text)]; ok {
		return known, nil
	}
	limits := tier.Limits{Features: []string{}}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &limits); err != nil {
			return limits, fmt.Errorf("read the limits %s: %w", text, err)
		}
	}
	r[string(text)] = limits
	return limits, nil
}
